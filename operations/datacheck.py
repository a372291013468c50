"""Which open data sources a folder holds, and whether they are complete, readable and unaltered.

In: a folder. Out: one `Check` for each source and file. Reads headers and checksums; what the values mean is the
business of the room `ehr`. A file that is readable but has an unknown sha256 is a warning: it may be another release.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from contracts.errors import MissingFileError
from operations.checks import Check
from operations.fetch import sha256_of
from operations.sources import MIMIC_DEMO, TJH, TJH_TEST, TJH_TRAIN, PublicFile, PublicSource

_SHEET = "Sheet1"
_TJH_COLUMNS = {
    TJH_TRAIN: ("PATIENT_ID", "RE_DATE", "age", "gender", "Admission time", "Discharge time", "outcome",
                "Lactate dehydrogenase", "High sensitivity C-reactive protein", "(%)lymphocyte"),
    TJH_TEST: ("PATIENT_ID", "RE_DATE", "Admission time", "Discharge time", "outcome", "Lactate dehydrogenase",
               "High sensitivity C-reactive protein", "(%)lymphocyte")}
_TJH_ROWS = {TJH_TRAIN: (6120, 81), TJH_TEST: (757, 8)}
_MIMIC_COLUMNS = {
    "hosp/patients.csv.gz": ("subject_id", "gender", "anchor_age", "dod"),
    "hosp/admissions.csv.gz": ("subject_id", "hadm_id", "admittime", "dischtime", "hospital_expire_flag"),
    "hosp/transfers.csv.gz": ("subject_id", "hadm_id", "transfer_id", "intime", "outtime"),
    "hosp/labevents.csv.gz": ("subject_id", "hadm_id", "itemid", "charttime", "valuenum", "valueuom"),
    "hosp/d_labitems.csv.gz": ("itemid", "label", "fluid"),
    "hosp/diagnoses_icd.csv.gz": ("subject_id", "hadm_id", "icd_code", "icd_version"),
    "hosp/d_icd_diagnoses.csv.gz": ("icd_code", "icd_version", "long_title"),
    "icu/icustays.csv.gz": ("subject_id", "hadm_id", "stay_id", "intime", "outtime"),
    "icu/chartevents.csv.gz": ("subject_id", "stay_id", "itemid", "charttime", "valuenum", "valueuom"),
    "icu/d_items.csv.gz": ("itemid", "label", "linksto")}
# A rebuilt chartevents table goes round with the demo; its use is sound, its difference should be known.
_REBUILT = {"d0b5c1bda1ade51f3835ed40a78b87b27253876d19708ffd0dddd6b1ed3afbec":
            "a reconstruction from the MEDS release (numbers only; no capillary refill, no text items)"}


def check(folder: Path) -> list[Check]:
    """Looks at a data folder.

    Args:
        folder: what EAG_RL_DATA would name; a folder of one source (`tjh` itself) will do too.

    Returns:
        At least one check; all of status "fail" name what to do.

    Raises:
        MissingFileError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingFileError(f"{folder} is no folder", "a folder with tjh/ or mimic-iv-demo-2.2/",
                               "correct the path, or run `eag-rl data fetch tjh`")
    found = [(source, place) for source in (TJH, MIMIC_DEMO) if (place := find(source, folder)) is not None]
    if not found:
        return [Check("sources", "fail", f"neither {TJH.folder}/ nor {MIMIC_DEMO.folder}/ lies in {folder}",
                      f"run `eag-rl data fetch tjh --target {folder}`, or name the folder that holds them")]
    return [result for source, place in found for result in _source(source, place)]


def find(source: PublicSource, folder: Path) -> Path | None:
    """Where a source lies: below `folder`, or `folder` itself."""
    for place in (folder / source.folder, folder):
        if any((place / file.path).is_file() for file in _tables(source)):
            return place
    return None


def is_demo(folder: Path) -> bool:
    """Does a folder hold the MIMIC-IV demo: the published table of patients, or a folder of its name?"""
    place = find(MIMIC_DEMO, folder)
    if place is None:
        return False
    published = {file.path: file.sha256 for file in MIMIC_DEMO.files}["hosp/patients.csv.gz"]
    patients = place / "hosp" / "patients.csv.gz"
    return place.name == MIMIC_DEMO.folder or (patients.is_file() and sha256_of(patients) == published)


def _tables(source: PublicSource) -> list[PublicFile]:
    return [file for file in source.files if file.path.endswith((".xlsx", ".csv.gz"))]


def _source(source: PublicSource, place: Path) -> Iterator[Check]:
    missing = [file.path for file in source.files if not (place / file.path).is_file()]
    needed = [path for path in missing if path in _TJH_COLUMNS or path in _MIMIC_COLUMNS]
    yield Check(source.name, "fail" if needed else "warn" if missing else "ok",
                f"{len(source.files) - len(missing)} of {len(source.files)} files in {place}"
                + (f"; missing: {', '.join(missing)}" if missing else f"; licence {source.licence}"),
                f"run `eag-rl data fetch {source.name}`: it adds what is missing" if missing else "")
    for file in _tables(source):
        if (place / file.path).is_file():
            yield _file(source, place / file.path, file)


def _file(source: PublicSource, path: Path, file: PublicFile) -> Check:
    name = f"{source.name}: {file.path}"
    refetch = f"move {path} away and run `eag-rl data fetch {source.name}`"
    try:
        shape, columns = _workbook(path) if path.suffix == ".xlsx" else _table(path)
        digest = sha256_of(path)
    except _Unreadable as error:
        return Check(name, "fail", str(error), refetch)
    except OSError as error:
        return Check(name, "fail", f"{path} cannot be read: {error}", f"mend its permissions, or {refetch}")
    absent = [column for column in {**_TJH_COLUMNS, **_MIMIC_COLUMNS}.get(file.path, ()) if column not in columns]
    if absent:
        return Check(name, "fail", f"no column {', '.join(map(repr, absent))} (has {', '.join(columns[:8])}, ...)",
                     refetch)
    if digest == file.sha256:
        return Check(name, "ok", f"{shape}; sha256 {digest[:12]} is the published one")
    if digest in _REBUILT:
        return Check(name, "warn", f"{shape}; {_REBUILT[digest]}", f"for the original: {refetch}")
    odd = "" if _TJH_ROWS.get(file.path) is None else f" (published: {_size(_TJH_ROWS[file.path])})"
    return Check(name, "warn", f"{shape}{odd}; sha256 {digest[:12]} is not the published {file.sha256[:12]}",
                 f"if it should be the published file: {refetch}; if it is another release on purpose, all is well")


class _Unreadable(Exception):
    """A file that is not what its name says."""


def _workbook(path: Path) -> tuple[str, Sequence[str]]:
    import fastexcel

    try:
        book = fastexcel.read_excel(str(path))
        if _SHEET not in book.sheet_names:
            raise _Unreadable(f"no sheet {_SHEET!r} (has {', '.join(map(repr, book.sheet_names))})")
        sheet = book.load_sheet(_SHEET, dtypes="string")
    except fastexcel.FastExcelError as error:
        raise _Unreadable(f"not readable as an Excel workbook: {error}") from error
    columns = [column.name for column in sheet.available_columns()]
    return _size((sheet.total_height, len(columns))), columns


def _table(path: Path) -> tuple[str, Sequence[str]]:
    rows = -1
    try:
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            header = stream.readline().rstrip("\n")
            rows = sum(1 for _ in stream)
    except (gzip.BadGzipFile, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise _Unreadable(f"not readable as gzipped CSV: {error}") from error
    columns = [column.strip().strip('"') for column in header.split(",")]
    return _size((rows, len(columns))), columns


def _size(shape: tuple[int, int]) -> str:
    return f"{shape[0]} rows x {shape[1]} columns"
