"""The Tongji Hospital workbook as a typed frame: one row a row of the sheet, nothing dropped yet.

In: a path and which of the two workbooks it is (`Layout`). Out: `Workbook` with columns row (as Excel counts), patient,
time, age, sex, admitted_at, discharged_at, label, and one Float64 column for each lab, names without trailing blanks.
Every cell is read as text and parsed here, so that an unreadable one is named with its row, and integer columns cannot
differ in type from decimal ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from hashlib import file_digest
from pathlib import Path

import fastexcel
import polars as pl

from contracts.errors import DataError, MissingFileError
from contracts.features import Catalogue

FILE = "time_series_375_prerpocess_en.xlsx"
EXTERNAL_FILE = "time_series_test_110_preprocess_en.xlsx"
SHEET = "Sheet1"
CONSTANT_LAB = "2019-nCoV nucleic acid detection"
# The source's names of the columns that are no labs, and ours.
FIXED = {"PATIENT_ID": "patient", "RE_DATE": "time", "age": "age", "gender": "sex", "Admission time": "admitted_at",
         "Discharge time": "discharged_at", "outcome": "label"}
_MOMENTS = ("time", "admitted_at", "discharged_at")
_WHOLE = ("patient", "sex", "label")
_FORMATS = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d")


@dataclass(frozen=True)
class Layout:
    """One of the source's two workbooks.

    Attributes:
        source: its name in cohorts and identifiers.
        file: its name.
        lacking: fixed columns that it does not have; they are read as empty.
        labs: the labs that it has; none: all of the catalogue and the constant one. The others are read as empty.
    """

    source: str
    file: str
    lacking: tuple[str, ...] = ()
    labs: tuple[str, ...] | None = None

    def columns(self, catalogue: Catalogue) -> list[str]:
        """All column names that the sheet has, without trailing blanks."""
        labs = self.labs if self.labs is not None else (*catalogue.names, CONSTANT_LAB)
        return [*(name for name in FIXED if name not in self.lacking), *labs]


MAIN = Layout("tjh", FILE)
EXTERNAL = Layout("tjh_external", EXTERNAL_FILE, ("age", "gender"),
                  ("Lactate dehydrogenase", "High sensitivity C-reactive protein", "(%)lymphocyte"))


@dataclass(frozen=True)
class Workbook:
    """The parsed sheet.

    Attributes:
        rows: see the module's header.
        trimmed: columns whose name lost blanks.
        filled: rows whose merged id cell was filled from above.
        sha256: of the file.
    """

    rows: pl.DataFrame = field(repr=False)
    trimmed: int
    filled: int
    sha256: str


def locate(data: Path | None, layout: Layout = MAIN) -> Path:
    """The workbook in a data folder (`tjh/FILE` or `FILE`), or `data` itself where it is a file.

    Raises:
        MissingFileError: it is at none of these places.
    """
    rule = f"the TJH workbook {layout.file}, or a folder that holds it or tjh/{layout.file}"
    step = "run `eag-rl data fetch tjh`, or name the folder in paths.data or the variable EAG_RL_DATA"
    if data is None:
        raise MissingFileError("no data folder is set", rule, step)
    for path in (data, data / "tjh" / layout.file, data / layout.file):
        if path.is_file():
            return path
    raise MissingFileError(f"{data} {'holds no such file' if data.is_dir() else 'does not exist'}", rule, step)


def read(path: Path, catalogue: Catalogue, layout: Layout = MAIN) -> Workbook:
    """Parses the workbook; columns that it does not have are there and empty.

    Raises:
        DataError: it is no xlsx, or a sheet, column or cell is not as expected; a cell is named with row and column.
    """
    text = _sheet(path)
    trimmed = sum(name != name.strip() for name in text.columns)
    text = text.rename({name: name.strip() for name in text.columns})
    _check_header(path, text.columns, catalogue, layout)
    empty = [name for name in MAIN.columns(catalogue) if name not in text.columns]
    text = text.with_columns(pl.lit(None, pl.String).alias(name) for name in empty)
    text = text.rename(FIXED).with_row_index("row", offset=2)
    labs = [*catalogue.names, CONSTANT_LAB]
    columns = [_moments(path, text, name) for name in _MOMENTS]
    columns += [_numbers(path, text, name).cast(pl.Int64) for name in _WHOLE]
    columns += [_numbers(path, text, name) for name in ("age", *labs)]
    rows = pl.DataFrame([text["row"], *columns])
    filled = rows["patient"].null_count()
    if rows["patient"][0] is None:
        raise DataError(f"{path.name}: row 2 has no PATIENT_ID", "the first row names its patient (merged cells below)",
                        "repair the first id cell of the sheet")
    rows = rows.with_columns(pl.col("patient").forward_fill())
    with path.open("rb") as file:
        sha256 = file_digest(file, "sha256").hexdigest()
    return Workbook(rows=rows, trimmed=trimmed, filled=filled, sha256=sha256)


def _sheet(path: Path) -> pl.DataFrame:
    try:
        book = fastexcel.read_excel(path)
    except (fastexcel.FastExcelError, OSError) as error:
        raise DataError(f"{path.name} cannot be opened as a workbook ({str(error).splitlines()[0]})",
                        "an Excel workbook (.xlsx)", "fetch the file again and compare its sha256") from error
    if SHEET not in book.sheet_names:
        raise DataError(f"{path.name} has the sheets {book.sheet_names}", f"the records are in sheet {SHEET!r}",
                        "rename the sheet, or give the original file")
    try:
        sheet = book.load_sheet(SHEET, dtypes="string", whitespace_as_null=True, skip_whitespace_tail_rows=True)
        batch, errors = sheet.to_arrow_with_errors()
    except fastexcel.FastExcelError as error:
        raise DataError(f"{path.name}: sheet {SHEET} cannot be read ({str(error).splitlines()[0]})",
                        "a sheet with a header in row 1 and plain cells",
                        "open it in Excel and save it again") from error
    if errors is not None and errors.errors:
        # Without this an Excel error such as #N/A would pass for an empty cell.
        row, column = errors.errors[0].position
        raise DataError(f"{path.name}: row {row + 1}, column {batch.schema.names[column]!r}: {errors.errors[0].detail} "
                        f"({len(errors.errors)} such cells)", "each cell holds text, a number or a date",
                        "correct the cell")
    frame = pl.DataFrame(pl.from_arrow(batch))
    if not frame.height:
        raise DataError(f"{path.name}: sheet {SHEET} has no rows below its header", "one row a laboratory record",
                        "give the original file")
    return frame


def _check_header(path: Path, columns: Sequence[str], catalogue: Catalogue, layout: Layout) -> None:
    expected = layout.columns(catalogue)
    fixed = [name for name in FIXED if name not in layout.lacking]
    missing = [name for name in expected if name not in columns]
    unknown = [name for name in columns if name not in expected]
    rule = f"{len(fixed)} fixed columns ({', '.join(fixed)}) and {len(expected) - len(fixed)} labs"
    if missing:
        close = get_close_matches(missing[0], unknown, n=1)
        hint = f"; is it {close[0]!r}?" if close else ""
        raise DataError(f"{path.name} lacks {len(missing)} columns, first {missing[0]!r}{hint}", rule,
                        f"give {layout.file}; the external file of 110 patients has no age and no gender: it is "
                        "cohort.source=tjh_external, to judge policies of another study on")
    if unknown:
        raise DataError(f"{path.name} has {len(unknown)} unknown columns, first {unknown[0]!r}", rule,
                        "remove them, or add the lab to contracts/catalogues/tjh.yaml")


def _numbers(path: Path, text: pl.DataFrame, name: str) -> pl.Series:
    found = text[name].str.strip_chars()
    parsed = found.cast(pl.Float64, strict=False)
    bad = found.is_not_null() & ~parsed.is_finite().fill_null(False)
    if name in _WHOLE:
        bad = bad | (parsed != parsed.round(0)).fill_null(False)
    return _refuse(path, text, name, bad, "a number" if name not in _WHOLE else "a whole number", parsed)


def _moments(path: Path, text: pl.DataFrame, name: str) -> pl.Series:
    found = text[name].str.strip_chars()
    tries = [pl.col(name).str.to_datetime(format, time_unit="us", strict=False) for format in _FORMATS]
    parsed = found.to_frame().select(pl.coalesce(tries).alias(name)).to_series()
    bad = found.is_not_null() & parsed.is_null()
    return _refuse(path, text, name, bad, "a date and time, YYYY-MM-DD HH:MM:SS", parsed)


def _refuse(path: Path, text: pl.DataFrame, name: str, bad: pl.Series, rule: str, parsed: pl.Series) -> pl.Series:
    if bad.any():
        first = bad.arg_max() or 0
        column = {ours: theirs for theirs, ours in FIXED.items()}.get(name, name)
        raise DataError(f"{path.name}: row {text['row'][first]}, column {column!r}: {text[name][first]!r} "
                        f"({bad.sum()} such cells in this column)", f"each cell holds {rule}", "correct the cell")
    return parsed
