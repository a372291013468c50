"""Writing an extract: blocks of patients, cut into pieces of bounded size, to files.

In: a folder, a layout, how many stays, how many rows, how much dirt. Out: the files, and an `Extract` that counts them.

Memory does not grow with the extract: at a time there are one block of `people.BLOCK` patients without their
measurements and one piece of about ROWS_AT_ONCE measurements. What is random comes from the seed, the number of the
block and the number of the piece; so a smaller extract is the beginning of a larger one, up to its last block.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from contracts.errors import ConfigError, StorageError
from contracts.features import catalogue
from ehr.extracts.bedside import MEAN_HOURS, Rows, filed, pieces, signs
from ehr.extracts.charting import ITEM_IDS, chart, chart_frame, d_items, features_per_stay
from ehr.extracts.dirt import IN_CHARTS, IN_LABS, Tally, strew, tally
from ehr.extracts.files import Table, open_table, write_checksums, write_parquet
from ehr.extracts.laboratory import LAB_IDS, d_labitems, lab_frame, report
from ehr.extracts.layouts import Layout, Schema, layout
from ehr.extracts.people import Numbers, People, draw
from ehr.extracts.registers import DIAGNOSES, registers
from ehr.sources.hazard import planted_truth

ROWS_AT_ONCE = 250_000
MOST_STAYS, MOST_ROWS, MOST_DIRT = 1_000_000, 1_000_000, 0.9
# Of the rows of real chartevents, some 14 % are of the 17 features.
INTEREST = 0.136
TRUTH = {"stay_id": pl.Int64(), "feature": pl.String(), "effect": pl.Float64(), "rank": pl.Int32()}
_STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.ENOTDIR)
Progress = Callable[[int, int, str], None]


@dataclass
class Extract:
    """What was written: rows of each table, and rows that were spoilt."""

    folder: Path
    layout: str
    rows: dict[str, int] = field(default_factory=dict)
    dirty: int = 0


@dataclass(frozen=True)
class _Order:
    """What was asked for; `others` are the expected rows of no interest in an hour of a stay."""

    layout: Layout
    stays: int
    seed: int
    dirty: float
    others: float

    @property
    def hours_at_once(self) -> int:
        return max(1, int(ROWS_AT_ONCE / (self.others + features_per_stay() / MEAN_HOURS)))


def synthesize(out: Path, layout_name: str, stays: int, seed: int = 42, dirty: float = 0.0,
               rows_per_stay: int | None = None, file_format: str = "csv.gz",
               on_progress: Progress | None = None) -> Extract:
    """Writes an extract.

    Args:
        out: folder that is not there or empty; gets hosp/, icu/, truth.parquet, dirt.parquet and, last, SHA256SUMS.txt.
        layout_name: see `layouts.NAMES`.
        stays: ICU stays.
        seed: equal arguments give equal bytes.
        dirty: share of measurements that are spoilt, each in one way of `dirt.KINDS`.
        rows_per_stay: mean rows of chartevents for a stay (only those of no interest are scaled; the features have
            some 540 a stay, always); None: as many as make their share real.
        file_format: csv.gz, csv or parquet.
        on_progress: called after each block with the stays done, all stays, and a note.

    Raises:
        ConfigError: a layout, number or format that is not allowed, or a folder that is not empty.
        StorageError: the disk is full or cannot be written.
    """
    order = _order(layout_name, stays, seed, dirty, rows_per_stay)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"folder {out} is there and not empty", "an extract is written to a new or empty folder",
                          "name another folder with --out, or remove this one")
    extract = Extract(out, order.layout.name)
    try:
        _write(order, extract, file_format, on_progress or _silent)
    except OSError as error:
        if error.errno not in _STORAGE:
            raise
        raise StorageError(f"{out}: {error.strerror}", "the disk has room for the extract and can be written",
                           "free space or name another folder with --out; remove the unfinished one") from error
    return extract


def _silent(_done: int, _total: int, _note: str) -> None:
    """Shows nothing."""


def _order(layout_name: str, stays: int, seed: int, dirty: float, rows_per_stay: int | None) -> _Order:
    features = features_per_stay()
    rows = features / INTEREST if rows_per_stay is None else float(rows_per_stay)
    for name, value, low, high in (("--stays", stays, 1, MOST_STAYS), ("--rows-per-stay", rows, 1, MOST_ROWS),
                                   ("--dirty", dirty, 0.0, MOST_DIRT), ("--seed", seed, 0, 2**32 - 1)):
        if not low <= value <= high:
            raise ConfigError(f"{name} = {value}", f"from {low} to {high}", f"choose another value for {name}")
    return _Order(layout(layout_name), stays, seed, dirty, max(0.0, rows - features) / MEAN_HOURS)


def _write(order: _Order, extract: Extract, file_format: str, on_progress: Progress) -> None:
    dirt = {"icu/chartevents": tally("icu/chartevents", ITEM_IDS), "hosp/labevents": tally("hosp/labevents", LAB_IDS)}
    with ExitStack() as stack:
        def opened_table(name: str, schema: Schema, form: str) -> Table:
            return stack.enter_context(closing(open_table(extract.folder / name, schema, form)))

        opened = {name: opened_table(name, schema, file_format) for name, schema in order.layout.tables.items()}
        opened["truth"] = opened_table("truth", TRUTH, "parquet")

        def put(name: str, rows: pl.DataFrame) -> None:
            opened[name].write(rows)
            extract.rows[name] = extract.rows.get(name, 0) + rows.height

        for name, rows in _dictionaries().items():
            put(name, rows)
        done, numbers = 0, Numbers()
        for number, people, tables in _blocks(order, numbers):
            for name, rows in tables.items():
                put(name, rows)
            for name, rows in _measurements(order, number, people, numbers, dirt):
                put(name, rows)
            done += people.stays.stay.size
            on_progress(done, order.stays, f"{extract.rows['icu/chartevents']} chart rows")
    extract.folder.mkdir(parents=True, exist_ok=True)
    table = pl.concat([one.frame() for one in dirt.values()])
    extract.dirty = int(table["rows"].sum())
    write_parquet(table, extract.folder / "dirt.parquet")
    write_checksums(extract.folder)


def _dictionaries() -> dict[str, pl.DataFrame]:
    return {"icu/d_items": d_items(), "hosp/d_labitems": d_labitems(),
            "hosp/d_icd_diagnoses": pl.DataFrame(DIAGNOSES, schema=["icd_code", "icd_version", "long_title"],
                                                 orient="row")}


def _blocks(order: _Order, numbers: Numbers) -> Iterator[tuple[int, People, dict[str, pl.DataFrame]]]:
    """Number, people and registers of each block, until there are as many stays as were asked for."""
    left, block = order.stays, 0
    while left:
        rng = np.random.default_rng([order.seed, block, 0])
        people = draw(block, left, len(order.layout.year_groups), numbers, rng)
        yield block, people, {**registers(people, order.layout, numbers, rng), "truth": _truth(people)}
        left, block = left - people.stays.stay.size, block + 1


def _measurements(order: _Order, block: int, people: People, numbers: Numbers,
                  dirt: dict[str, Tally]) -> Iterator[tuple[str, pl.DataFrame]]:
    """Frames of chartevents and labevents, piece by piece."""
    for number, hours in enumerate(pieces(people, order.hours_at_once), 1):
        rng = np.random.default_rng([order.seed, block, number])
        now = signs(people, hours, rng)
        chart_rows = chart(people, hours, now, order.others, rng)
        lab_rows = report(people, hours, now, rng)
        first_lab = numbers.next_labs(lab_rows.stay.size)
        chart_rows = _final(chart_rows, people, IN_CHARTS, order, dirt["icu/chartevents"], rng)
        lab_rows = _final(lab_rows, people, IN_LABS, order, dirt["hosp/labevents"], rng)
        yield "icu/chartevents", chart_frame(chart_rows, people)
        yield "hosp/labevents", lab_frame(lab_rows, people, first_lab)


def _final(rows: Rows, people: People, kinds: Sequence[int], order: _Order, counts: Tally,
           rng: np.random.Generator) -> Rows:
    if order.dirty:
        rows = strew(rows, people, kinds, order.dirty, counts, rng)
    return filed(rows, people)


def _truth(people: People) -> pl.DataFrame:
    return planted_truth(pl.Series("stay_id", people.stays.stay), people.admissions.effects[people.stays.admission],
                         catalogue("mimic_iv").tokens)
