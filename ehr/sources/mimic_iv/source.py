"""MIMIC-IV as a `Source`: stays with labels, daily records of the 17 features, and what every rule dropped.

In: a PhysioNet folder, the section `cohort` and a cache. Out: a `Source` that holds `days` instead of events, further
outcomes as `targets`, and the rows set aside. Needs no more memory for a hundred million rows than for one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import polars as pl

from configs.schema import Cohort as Section
from contracts.errors import DataError
from ehr.attrition import Step
from ehr.sources.days import Engine, daily_records, threads
from ehr.sources.icu_stays import Stays, contract_stays, slot_of, windows_of
from ehr.sources.mimic_iv.ingest import counts_of, ingest
from ehr.sources.mimic_iv.items import items
from ehr.sources.mimic_iv.layout import open_extract
from ehr.sources.mimic_iv.stays import read_stays
from ehr.sources.mimic_iv.targets import read_targets
from ehr.sources.places import readable
from ehr.sources.source import Source

EVENTS = ("icu/chartevents", "hosp/labevents")
Report = Callable[[str, int, int], None]


def read_mimic_iv(data: Path | None, section: Section, cache: Path, checksums: Mapping[str, str],
                  report: Report = lambda *_: None, *, parsed: Path | None = None,
                  engine: Engine = threads) -> Source:
    """Reads an extract.

    Args:
        data: the folder with hosp/ and icu/, or one above it.
        cache: where daily records are kept, and parsed tables if `parsed` names no other place.
        checksums: table name to sha256 of its file.
        report: called with (table, bytes read, bytes in all).
        engine: aggregates the parts.

    Raises:
        MissingFileError, DataError: a table is missing or not what it should be.
        StorageError: the disk is full.
    """
    ours = section.mimic_iv
    extract = open_extract(data, ours.allow_extra_columns)
    read = read_stays(extract, section.outcome, ours.unit)
    windows = windows_of(read.stays, ours)
    folders = [ingest(extract.tables[name], checksums[name], parsed or cache, ours.quarantine_limit,
                      partial(report, name)) for name in EVENTS]
    daily = daily_records(folders, windows, cache, items(), slot_of(section.outcome, ours), engine)
    if not daily.days.height:
        raise DataError("no measurement lies inside any stay", "stays have measurements of the 17 features",
                        "are chartevents and icustays of the same extract? Look at its attrition")
    stays = contract_stays(read.stays, "mimic-iv")
    ids = dict(zip(read.stays["stay"], stays["stay_id"], strict=True))
    named = pl.col("stay").replace_strict(ids, return_dtype=pl.String).alias("stay_id")
    days = daily.days.with_columns(named).drop("stay")
    outcomes = read_targets(extract, read.stays, daily.days.select("stay", "date"), ours)
    targets = outcomes.rows.select(named, "name", "value").sort("stay_id", "name")
    tables = [step for folder, name in zip(folders, EVENTS, strict=True) for step in _table_steps(folder, name)]
    return Source(
        name="mimic_iv", catalogue="mimic_iv", stays=stays.sort("stay_id"), days=days.sort("stay_id", "date"),
        attrition=(*read.steps, *tables, *daily.steps, *outcomes.steps),
        files={extract.tables[name].path.name: checksums[name] for name in extract.tables},
        parsed=dict(zip(EVENTS, folders, strict=True)),
        quarantine=pl.concat([_quarantine(read, folders), outcomes.aside]), version=extract.version, targets=targets)


def _table_steps(folder: Path, name: str) -> list[Step]:
    counts = counts_of(folder)
    left = counts["interest"] + counts["unread"]
    others = counts["rows"] - left
    steps = [Step(f"{name}: row of another item: not read", "rows", others, others, left)]
    left -= counts["without_number"]
    steps.append(Step(f"{name}: no number: dropped", "rows", counts["without_number"], counts["without_number"], left))
    for reason, count in sorted(counts["reasons"].items()):
        left -= count
        steps.append(Step(f"{name}: {reason}: set aside", "rows", count, count, left))
    steps.append(Step(f"{name}: no hadm_id: placed by patient and time", "rows", counts["without_hadm"], 0,
                      counts["kept"]))
    if counts["returns"]:
        steps.append(Step(f"{name}: line ends with CR LF: read alike", "rows", counts["returns"], 0, counts["kept"]))
    return steps


def _quarantine(read: Stays, folders: list[Path]) -> pl.DataFrame:
    """table, key (of a stay, or the number of the row), reason, text."""
    frames = [read.aside.with_columns(pl.lit("").alias("text"))]
    for folder, name in zip(folders, EVENTS, strict=True):
        frames.append(pl.read_parquet(readable(folder / "quarantine.parquet")).select(
            pl.lit(name).alias("table"), pl.col("row").cast(pl.String).alias("key"), "reason", "text"))
    return pl.concat(frames)
