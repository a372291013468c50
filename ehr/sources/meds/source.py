"""A MEDS dataset as a `Source`: stays with labels, daily records of the catalogue's features, what every rule dropped.

In: a MEDS dataset, the section `cohort` with a mapping, and a cache. Out: a `Source` that holds `days` instead of
events.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from hashlib import sha256
from pathlib import Path

import polars as pl

from configs.schema import Cohort as Section
from contracts.errors import DataError
from ehr.attrition import Step
from ehr.sources.days import Engine, daily_records, threads
from ehr.sources.icu_stays import contract_stays, slot_of, windows_of
from ehr.sources.meds.codes import Codes, known_features, resolved
from ehr.sources.meds.dataset import METADATA, Dataset, open_dataset
from ehr.sources.meds.mapping import mapping_file, read_mapping
from ehr.sources.meds.measurements import measure, steps_of
from ehr.sources.meds.stays import read_events, read_stays
from ehr.sources.source import Source

Report = Callable[[str, int, int], None]


def source_files(data: Path | None, section: Section) -> dict[str, Path]:
    """All files that a cohort is made of: the dataset's and the mapping's.

    Raises:
        MissingFileError, DataError, ConfigError: they are missing or not as they should be.
    """
    mapping = mapping_file(section.meds.mapping)
    dataset = open_dataset(data)
    about = {} if dataset.about is None else {METADATA: dataset.about}
    return {**dataset.files, **about, f"mapping/{mapping.name}": mapping}


def read_meds(data: Path | None, section: Section, cache: Path, checksums: Mapping[str, str],
              report: Report = lambda *_: None, *, parsed: Path | None = None, engine: Engine = threads) -> Source:
    """Reads a dataset.

    Args:
        data: its folder, the one above, or a parquet file.
        cache: where daily records are kept, and measurements if `parsed` names no other place.
        checksums: name of each of `source_files` to sha256.
        report: called with ("events", rows read, rows in all).
        engine: aggregates the parts.

    Raises:
        MissingFileError, DataError: the dataset is missing or not what it should be.
        ConfigError: the mapping is.
        StorageError: the disk is full.
    """
    ours = section.meds
    mapping, dataset = read_mapping(ours.mapping), open_dataset(data)
    known = known_features(mapping, checksums[f"mapping/{mapping_file(ours.mapping).name}"])
    counts = _counts(dataset)
    codes = resolved(mapping, counts, dataset.parents())
    read = read_stays(read_events(dataset, codes), mapping, section.outcome, ours.unit)
    decisive = [*dataset.files, *([] if dataset.about is None else [METADATA])]
    names = "\n".join(f"{name}\0{checksums[name]}" for name in sorted(decisive))
    key = sha256(f"{names}\n{known.digest}".encode()).hexdigest()
    folder = measure(dataset, codes, key, int(counts["rows"].sum()), parsed or cache, ours.quarantine_limit,
                     partial(report, "events"))
    daily = daily_records([folder], windows_of(read.stays, ours), cache, known, slot_of(section.outcome, ours),
                          engine)
    if not daily.days.height:
        raise DataError("no measurement lies inside any stay", "stays have measurements of the mapped features",
                        "are times of stays and measurements those of one clock? Look at the mapping")
    stays = contract_stays(read.stays, "meds")
    ids = dict(zip(read.stays["stay"], stays["stay_id"], strict=True))
    days = daily.days.with_columns(pl.col("stay").replace_strict(ids, return_dtype=pl.String).alias("stay_id"))
    rows, aside = steps_of(folder)
    return Source(
        name="meds", catalogue=mapping.catalogue, stays=stays.sort("stay_id"),
        days=days.drop("stay").sort("stay_id", "date"), files=dict(checksums),
        parsed={"": folder},
        attrition=(*_silent(codes), *read.steps, *rows, *daily.steps),
        quarantine=pl.concat([read.aside.with_columns(pl.lit("").alias("text")), aside, _rules(codes)]))


def _counts(dataset: Dataset) -> pl.DataFrame:
    """code, rows of all codes that occur."""
    counts = dataset.collect(lambda every: every.group_by("code").agg(pl.len().alias("rows")))
    if not counts.height:
        raise DataError(f"{', '.join(dataset.files)}: no row", "a dataset has events", "copy the files again")
    return counts


def _silent(codes: Codes) -> list[Step]:
    """A warning: rules of the mapping that meet nothing; all are named in the quarantine."""
    if not codes.silent:
        return []
    named = "; ".join(codes.silent[:3])
    return [Step(f"mapping: rule that matches no code of the data ({named}{'; ...' if len(codes.silent) > 3 else ''})",
                 "rules", len(codes.silent), 0, len(codes.silent))]


def _rules(codes: Codes) -> pl.DataFrame:
    return pl.DataFrame([("mapping", rule, "matches no code of the data", "") for rule in codes.silent],
                        schema=dict.fromkeys(("table", "key", "reason", "text"), pl.String), orient="row")
