"""A PhysioNet folder: which tables it holds, as what files, of which version.

In: a folder. Out: an `Extract`; tables of OPTIONAL may be absent from it. Versions 2.0 to 3.1 are known. What the
folder says of its version (its name, README or SHA256SUMS) must agree with what its columns and years show.
"""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from contracts.errors import DataError, MissingFileError
from ehr.sources.places import seekable

FORMATS = ("csv.gz", "csv", "parquet")
# The columns that are read; a table may have more of the known ones, in any order.
NEEDED: dict[str, tuple[str, ...]] = {
    "hosp/patients": ("subject_id", "gender", "anchor_age", "anchor_year", "anchor_year_group", "dod"),
    "hosp/admissions": ("subject_id", "hadm_id", "admittime", "dischtime", "deathtime", "hospital_expire_flag"),
    "icu/icustays": ("subject_id", "hadm_id", "stay_id", "intime", "outtime"),
    "icu/chartevents": ("subject_id", "hadm_id", "stay_id", "charttime", "itemid", "value", "valuenum", "valueuom"),
    "hosp/labevents": ("subject_id", "hadm_id", "itemid", "charttime", "value", "valuenum", "valueuom"),
}
# Read where they are there.
OPTIONAL: dict[str, tuple[str, ...]] = {"hosp/diagnoses_icd": ("subject_id", "hadm_id", "icd_code", "icd_version")}
KNOWN: dict[str, tuple[str, ...]] = {
    "hosp/patients": NEEDED["hosp/patients"],
    "hosp/admissions": (*NEEDED["hosp/admissions"], "admission_type", "admit_provider_id", "admission_location",
                        "discharge_location", "insurance", "language", "marital_status", "race", "ethnicity",
                        "edregtime", "edouttime"),
    "icu/icustays": (*NEEDED["icu/icustays"], "first_careunit", "last_careunit", "los"),
    "icu/chartevents": (*NEEDED["icu/chartevents"], "caregiver_id", "storetime", "warning"),
    "hosp/labevents": (*NEEDED["hosp/labevents"], "labevent_id", "specimen_id", "order_provider_id", "storetime",
                       "ref_range_lower", "ref_range_upper", "flag", "priority", "comments"),
    "hosp/diagnoses_icd": (*OPTIONAL["hosp/diagnoses_icd"], "seq_num"),
}
VERSIONS = ("2.0", "2.1", "2.2", "3.0", "3.1")
_DECLARED = re.compile(r"mimic[-_ ]?iv[^\n]{0,60}?[-_ v](\d+\.\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Table:
    """One table of an extract.

    Attributes:
        name: "icu/chartevents". path: its file. format: of FORMATS. columns: in the file's order.
    """

    name: str
    path: Path
    format: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Extract:
    """One extract. `version` is one of VERSIONS, or "2.0" and the like with a "+" where only a lower bound shows."""

    folder: Path
    version: str
    tables: dict[str, Table]


def open_extract(folder: Path | None, allow_extra: bool = False) -> Extract:
    """Looks the folder over; reads headers only.

    Args:
        folder: the one that holds hosp/ and icu/, or a folder above with exactly one such inside.
        allow_extra: columns that no known version has are passed over instead of refused.

    Raises:
        MissingFileError: no folder, or a table is missing.
        DataError: a column is missing or unknown, a table is there twice, or the version is unknown or contradictory.
    """
    root = _root(folder)
    names = [*NEEDED, *(name for name in OPTIONAL if any((root / f"{name}.{kind}").is_file() for kind in FORMATS))]
    tables = {name: _table(root, name, allow_extra) for name in names}
    return Extract(root, _version(root, tables), tables)


def _root(folder: Path | None) -> Path:
    rule = "a PhysioNet folder of MIMIC-IV holds hosp/ and icu/"
    if folder is None:
        raise MissingFileError("no data folder is named", rule, "set EAG_RL_DATA or paths.data to it")
    if (folder / "hosp").is_dir() and (folder / "icu").is_dir():
        return folder
    inside = sorted(part.parent for part in folder.glob("*/icu") if (part.parent / "hosp").is_dir())
    if len(inside) == 1:
        return inside[0]
    found = f"{len(inside)} such folders: {', '.join(part.name for part in inside)}" if inside else "no such folder"
    raise MissingFileError(f"{folder} holds {found}", rule,
                           "name the one that is meant: EAG_RL_DATA=<folder> or paths.data")


def _table(root: Path, name: str, allow_extra: bool) -> Table:
    there = [(root / f"{name}.{kind}", kind) for kind in FORMATS if (root / f"{name}.{kind}").is_file()]
    if not there:
        raise MissingFileError(f"{root} has no {name}.csv.gz (nor .csv, .parquet)",
                               f"these tables are read: {', '.join(NEEDED)}", "copy it from PhysioNet")
    if len(there) > 1:
        raise DataError(f"{name} is there {len(there)} times: {', '.join(path.name for path, _ in there)}",
                        "each table is one file", "remove all but one")
    path, kind = there[0]
    columns = header(path, kind)
    check_columns(name, path, columns, allow_extra)
    return Table(name, path, kind, columns)


def header(path: Path, kind: str) -> tuple[str, ...]:
    """Column names of a file.

    Raises:
        DataError: the file is empty or cannot be read.
    """
    try:
        if kind == "parquet":
            import pyarrow.parquet as pq
            return tuple(pq.read_schema(seekable(path)).names)
        with (gzip.open(seekable(path), "rt", encoding="utf-8-sig", newline="") if kind == "csv.gz"
              else path.open(encoding="utf-8-sig", newline="")) as file:
            columns = next(csv.reader(file), [])
    except (OSError, EOFError, UnicodeDecodeError, ValueError, zlib.error) as error:
        raise DataError(f"{path}: {error}", f"a readable {kind} file with a header", "copy the file again") from error
    if not columns:
        raise DataError(f"{path} is empty", "a table has a header and rows", "copy the file again")
    return tuple(column.strip() for column in columns)


def check_columns(name: str, path: Path, columns: Sequence[str], allow_extra: bool) -> None:
    """Refuses a header that lacks a column that is read, repeats one, or holds one that no version has.

    Raises:
        DataError: with the column, and the one it may have been renamed from.
    """
    if len(columns) == 1 and re.search(r"[;\t|]", columns[0]):
        raise DataError(f"{path.name}: its header is one column {columns[0][:60]!r}", "columns are separated by commas",
                        "export the table with commas")
    read = {**NEEDED, **OPTIONAL}[name]
    missing = [column for column in read if column not in columns]
    extra = [column for column in columns if column not in KNOWN[name]]
    if missing:
        renamed = f"; unknown columns: {', '.join(extra)}" if extra else ""
        raise DataError(f"{path.name} has no column {missing[0]!r}{renamed}", f"{name} has {', '.join(read)}",
                        "name the column as PhysioNet does")
    repeated = sorted({column for column in columns if columns.count(column) > 1})
    if repeated:
        raise DataError(f"{path.name} has column {repeated[0]!r} twice", "each column stands once", "remove one")
    if extra and not allow_extra:
        raise DataError(f"{path.name} has an unknown column {extra[0]!r}",
                        f"columns of {name} in versions {VERSIONS[0]} to {VERSIONS[-1]}: {', '.join(KNOWN[name])}",
                        "remove it, or set cohort.mimic_iv.allow_extra_columns=true if it is known to be harmless")


def _version(root: Path, tables: dict[str, Table]) -> str:
    """The version that the folder declares, held against its columns; else the lowest that has these columns."""
    providers = "caregiver_id" in tables["icu/chartevents"].columns
    declared = _declared(root)
    if declared is None:
        return "2.1+" if providers else "2.0"
    if declared not in VERSIONS:
        raise DataError(f"{root} says it is MIMIC-IV {declared}", f"known versions: {', '.join(VERSIONS)}",
                        "use a known version; a new one needs its columns and items checked in ehr/sources/mimic_iv")
    if (declared == "2.0") == providers:
        has = "has" if providers else "lacks"
        raise DataError(f"{root} says it is MIMIC-IV {declared}, but chartevents {has} caregiver_id",
                        "caregiver_id came with 2.1", "do not mix files of several versions")
    return declared


def _declared(root: Path) -> str | None:
    """The version that the folder's name or one of its own texts declares; the name counts first."""
    texts = [root.resolve().name]
    for name in ("README.txt", "README.md", "CHANGELOG.txt", "SHA256SUMS.txt", "LICENSE.txt"):
        path = root / name
        if path.is_file():
            texts.append(path.read_text(encoding="utf-8", errors="replace")[:4000])
    for text in texts:
        found = _DECLARED.search(text)
        if found:
            return found.group(1)
    return None
