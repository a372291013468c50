"""`eag-rl data check`: the open sources by their published checksums, other MIMIC-IV extracts by layout and their own.

A MIMIC-IV folder is the demo's if a table of patients is; of another extract the published checksums say nothing, so
it is held against SHA256SUMS.txt beside it, as PhysioNet and `eag-rl synthesize` write it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from contracts.errors import DataError, MissingFileError
from ehr.sources.meds.dataset import open_dataset
from ehr.sources.mimic_iv.layout import Extract, Table, open_extract
from operations import datacheck
from operations.arrivals import SUMS, sums_of
from operations.checks import Check
from operations.fetch import sha256_of

OnFile = Callable[[int, int, str], None]


def check_data(folder: Path, on_file: OnFile = lambda *_: None) -> list[Check]:
    """Looks at a data folder.

    Args:
        on_file: called with (files read, files in all, name) of an extract.

    Returns:
        At least one check; all of status "fail" name what to do.

    Raises:
        MissingFileError: there is no such folder.
    """
    if not folder.is_dir() or not _is_other_extract(folder):
        return datacheck.check(folder)
    try:
        extract = open_extract(folder, allow_extra=True)
    except DataError as error:
        return [Check("mimic-iv", "fail", error.value, f"{error.rule}: {error.next_step}")]
    return [_layout(extract), *_sums(extract, on_file)]


def check_source(source: str, folder: Path) -> list[Check]:
    """Whether a folder holds what a configuration reads, for the doctor: of an extract or a MEDS dataset the headers.

    Args:
        source: cohort.source of the configuration.

    Raises:
        EagRlError: it does not.
    """
    if source == "meds":
        dataset = open_dataset(folder)
        return [Check("meds", "ok", f"{len(dataset.files)} parquet files in {dataset.root}")]
    if source != "mimic_iv":
        return datacheck.check(folder)
    extract = open_extract(folder, allow_extra=True)
    return datacheck.check(extract.folder) if datacheck.is_demo(extract.folder) else [_layout(extract)]


def _is_other_extract(folder: Path) -> bool:
    """Is it MIMIC-IV, but not the demo?"""
    if datacheck.find(datacheck.TJH, folder) is not None:
        return False
    try:
        extract = open_extract(folder, allow_extra=True)
    except MissingFileError:
        return (folder / "hosp").is_dir() and (folder / "icu").is_dir() and not datacheck.is_demo(folder)
    except DataError:
        return not datacheck.is_demo(folder)
    return not datacheck.is_demo(extract.folder)


def _layout(extract: Extract) -> Check:
    kinds = ", ".join(sorted({table.format for table in extract.tables.values()}))
    return Check("mimic-iv", "ok", f"version {extract.version}, {len(extract.tables)} of the tables that are read "
                                   f"({kinds}) in {extract.folder}")


def _sums(extract: Extract, on_file: OnFile) -> Iterator[Check]:
    listed = extract.folder / SUMS
    if not listed.is_file():
        yield Check("mimic-iv: checksums", "warn", f"no {SUMS} in {extract.folder}: files cannot be checked",
                    f"copy {SUMS} from where the extract comes from")
        return
    known = sums_of(listed.read_text(encoding="utf-8"))
    for done, table in enumerate(extract.tables.values()):
        on_file(done, len(extract.tables), table.path.name)
        yield _sum(extract, table, known)


def _sum(extract: Extract, table: Table, known: dict[str, str]) -> Check:
    path = table.path.relative_to(extract.folder).as_posix()
    name, digest = f"mimic-iv: {path}", sha256_of(table.path)
    if path not in known:
        return Check(name, "warn", f"{SUMS} does not name it; sha256 {digest[:12]}", "is it of the same release?")
    if known[path] != digest:
        return Check(name, "fail", f"sha256 {digest[:12]} is not {known[path][:12]} of {SUMS}", "copy the file again")
    return Check(name, "ok", f"sha256 {digest[:12]} is that of {SUMS}")
