"""A MEDS dataset on the disk: which parquet files it has and what their columns are called.

In: a folder with data/**/*.parquet (and metadata/codes.parquet, if it is there, which says what codes mean), one flat
events.parquet, or a folder above exactly one of these. Out: a `Dataset`; only schemas are read. Times have no zone:
they are the hospital's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from contracts.errors import DataError, MissingFileError

_RULE = "a MEDS dataset has data/**/*.parquet, or is one events.parquet"
_BATCH = 1 << 18
FLAT = "events.parquet"
METADATA = "metadata/codes.parquet"


@dataclass(frozen=True)
class Dataset:
    """One dataset.

    Attributes:
        root: its folder. files: name under `root` to path, in order. number: column of each file's values.
        texts: files with a text_value. about: what is said of the codes, if anything.
    """

    root: Path
    files: dict[str, Path]
    number: dict[str, str]
    texts: frozenset[str]
    about: Path | None = None

    def parents(self) -> dict[str, set[str]]:
        """All parents of each code that `about` names one of, and the parents of these.

        Raises:
            DataError: the file is damaged, or its columns are not those of MEDS.
        """
        if self.about is None:
            return {}
        try:
            rows = pl.read_parquet(self.about)
            if "parent_codes" not in rows.columns:
                return {}
            direct = {code: set(parents) for code, parents in rows.select(
                pl.col("code").cast(pl.String), pl.col("parent_codes").cast(pl.List(pl.String))).drop_nulls().rows()}
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataError(f"{METADATA}: {str(error).splitlines()[0][:200]}",
                            "it has code (text) and parent_codes (list of texts), one row a code",
                            "write it as MEDS says, or remove it: rules by code need none") from error
        return {code: _ancestors(code, direct) for code in direct}

    def collect(self, query: Callable[[pl.LazyFrame], pl.LazyFrame]) -> pl.DataFrame:
        """What a query makes of all rows (subject, time (us), code, number, text), streaming.

        Raises:
            DataError: a file is damaged.
        """
        rows = pl.concat([self._named(pl.scan_parquet(path), name) for name, path in self.files.items()])
        try:
            return query(rows).collect(engine="streaming")
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataError(f"{', '.join(self.files)}: {str(error).splitlines()[0][:200]}", "readable parquet files",
                            "copy the files again") from error

    def batches(self) -> Iterator[pl.DataFrame]:
        """All rows as `collect` sees them, some hundred thousand at a time.

        Raises:
            DataError: a file is damaged.
        """
        for name, path in self.files.items():
            columns = ["subject_id", "time", "code", self.number[name], *(["text_value"] if name in self.texts else [])]
            try:
                with pq.ParquetFile(path) as file:
                    for batch in file.iter_batches(_BATCH, columns=columns):
                        rows = pl.from_arrow(pa.Table.from_batches([batch]))
                        if isinstance(rows, pl.DataFrame):
                            yield self._named(rows.lazy(), name).collect()
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{name}: {error}", "a readable parquet file", "copy the file again") from error

    def _named(self, rows: pl.LazyFrame, name: str) -> pl.LazyFrame:
        text = pl.col("text_value").cast(pl.String) if name in self.texts else pl.lit(None, pl.String)
        return rows.select(pl.col("subject_id").cast(pl.Int64).alias("subject"), pl.col("time").cast(pl.Datetime("us")),
                           pl.col("code").cast(pl.String), number_of(rows, self.number[name]).alias("number"),
                           text.alias("text"))


def _ancestors(code: str, direct: Mapping[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = list(direct.get(code, ()))
    while waiting:
        parent = waiting.pop()
        if parent not in found:
            found.add(parent)
            waiting += direct.get(parent, ())
    return found


def number_of(rows: pl.LazyFrame, column: str) -> pl.Expr:
    """Values as Float64. Of a Float32 the decimal that was meant: 7.31, not 7.309999942779541."""
    number = pl.col(column).cast(pl.Float64)
    return number.round_sig_figs(7) if rows.collect_schema()[column] == pl.Float32 else number


def open_dataset(data: Path | None) -> Dataset:
    """Looks the folder over.

    Raises:
        MissingFileError: no folder is named, or it holds no dataset.
        DataError: a column is missing or of a wrong type, or there are several datasets.
    """
    if data is None:
        raise MissingFileError("no data folder is named", _RULE, "set EAG_RL_DATA or paths.data to it")
    root, paths = _located(data)
    files = {path.relative_to(root).as_posix(): path for path in paths}
    schemas = {name: _schema(name, path) for name, path in files.items()}
    number = {name: "numeric_value" if "numeric_value" in schema else "value" for name, schema in schemas.items()}
    for name, schema in schemas.items():
        _check(name, schema, number[name])
    return Dataset(root, files, number, frozenset(name for name in schemas if "text_value" in schemas[name]),
                   root / METADATA if (root / METADATA).is_file() else None)


def _located(data: Path) -> tuple[Path, list[Path]]:
    if data.is_file():
        return data.parent, [data]
    own = _files(data)
    if own:
        return data, own
    inside = [(folder, _files(folder)) for folder in sorted(data.glob("*/")) if folder.is_dir()]
    inside = [(folder, files) for folder, files in inside if files]
    if len(inside) == 1:
        return inside[0]
    found = f"{len(inside)} datasets: {', '.join(folder.name for folder, _ in inside)}" if inside else "no dataset"
    raise MissingFileError(f"{data} holds {found}", _RULE, "name the one that is meant: EAG_RL_DATA or paths.data")


def _files(folder: Path) -> list[Path]:
    files = sorted(path for path in (folder / "data").rglob("*.parquet") if not path.name.startswith("."))
    return files or ([folder / FLAT] if (folder / FLAT).is_file() else [])


def _schema(name: str, path: Path) -> dict[str, pl.DataType]:
    try:
        return dict(pl.read_parquet_schema(path))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{name}: {str(error).splitlines()[0][:200]}", "a readable parquet file",
                        "copy the file again") from error


def _check(name: str, schema: dict[str, pl.DataType], number: str) -> None:
    asked = {"subject_id": "an integer", "time": "a datetime without zone", "code": "a string", number: "a number"}
    for column, kind in asked.items():
        if column not in schema:
            raise DataError(f"{name} has no column {'numeric_value' if column == 'value' else column!r}; it has "
                            f"{', '.join(schema)}",
                            "a MEDS file has subject_id, time, code and numeric_value (a flat one: value)",
                            "name the columns as MEDS does")
        dtype = schema[column]
        right = {"subject_id": dtype.is_integer(), "code": dtype in (pl.String, pl.Categorical, pl.Enum),
                 "time": isinstance(dtype, pl.Datetime) and dtype.time_zone is None}.get(column, dtype.is_numeric())
        if not right:
            raise DataError(f"{name}: column {column} is {dtype}", f"{column} is {kind}",
                            "convert the column as MEDS asks")
    if "text_value" in schema and schema["text_value"] not in (pl.String, pl.Categorical, pl.Enum, pl.Null):
        raise DataError(f"{name}: column text_value is {schema['text_value']}", "text_value is a string",
                        "convert the column as MEDS asks")
