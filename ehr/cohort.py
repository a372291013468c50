"""The cohort: source, split, visits, filled visits and training statistics of one study.

In: a `configs.schema.Cohort`, the study's seed and the data folder. Out: a `Cohort`; `write` and `read` are those of
`ehr.folder`. Outcomes beside the label (`targets`) are passed on for the stays that are kept; nothing else reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from configs.schema import Cohort as Section
from contracts.errors import ConfigError, DataError
from contracts.features import Catalogue, catalogue
from contracts.frames import SPLITS, STAYS
from ehr import attrition
from ehr.aggregate import daily, first_days, plausible, window
from ehr.attrition import Step
from ehr.folder import COHORT_STAYS, Cohort, read, write
from ehr.impute import carried_forward
from ehr.scale import fit
from ehr.sources.days import Engine, threads
from ehr.sources.meds.source import read_meds
from ehr.sources.mimic_iv.source import Report, read_mimic_iv
from ehr.sources.source import Source, checked
from ehr.sources.synthetic import generate
from ehr.sources.tjh import read_tjh
from ehr.sources.tjh_workbook import EXTERNAL
from ehr.splits import check_split, external_split, pinned_split, stratified_split

__all__ = ["Cohort", "counts", "prepare", "read", "read_source", "write"]


def read_source(section: Section, seed: int, data: Path | None, cache: Path = Path(".eag-rl/cache"),
                checksums: Mapping[str, str] | None = None, report: Report = lambda *_: None, *,
                parsed: Path | None = None, engine: Engine = threads) -> Source:
    """Reads the files of `section.source`, or generates its stays.

    Args:
        seed: of the generator; a source that reads files does not use it.
        data: folder of the real data, or the source's file itself; the generator needs none.
        cache: where daily records of an extract are kept. checksums: name of a table or file to sha256, of the
            same.
        report: called with (table, bytes read, bytes in all).
        parsed: where its parsed tables are kept; none: in `cache`. engine: aggregates its parts.

    Raises:
        MissingFileError, DataError: the source's files are missing or not as they should be.
    """
    if section.source == "tjh":
        return read_tjh(data, drop_after_discharge=section.drop_after_discharge,
                        with_paper_split=section.split == "paper")
    if section.source == "tjh_external":
        return read_tjh(data, EXTERNAL, drop_after_discharge=section.drop_after_discharge)
    if section.source == "mimic_iv":
        extract = read_mimic_iv(data, section, cache, checksums or {}, report, parsed=parsed, engine=engine)
        return checked(extract, catalogue("mimic_iv"))
    if section.source == "meds":
        source = read_meds(data, section, cache, checksums or {}, report, parsed=parsed, engine=engine)
        return checked(source, catalogue(source.catalogue))
    return generate(section.synthetic, seed)


def prepare(source: Source, section: Section, seed: int) -> Cohort:
    """Makes the cohort: bounds, daily records, split, window, LOCF, statistics of the training split.

    Args:
        source: result of `read_source` with the same section.
        seed: the study's; noted in `meta`. The split has `section.split_seed`.

    Raises:
        DataError: no stay is left, or a split is empty or of one label.
        ConfigError: split `paper` for a source that has none.
    """
    features = catalogue(source.catalogue)
    days, bounds = _days(source, features)
    stays, removed = _kept_stays(source, days, section.min_visits)
    stays = check_split(_with_split(stays, source, section))
    days = days.join(stays, on="stay_id", how="semi")
    visits = window(days, features, section.max_days)
    filled = carried_forward(visits, features.names)
    truth, targets = (frame.join(stays, on="stay_id", how="semi", maintain_order="left") if frame is not None else None
                      for frame in (source.truth, source.targets))
    return Cohort(
        stays=COHORT_STAYS.check(stays), visits=visits, filled=filled,
        scaling=fit(filled, stays, features.names, section.clip_sd),
        attrition=(*source.attrition, *bounds, *removed, _window_step(stays, visits, section.max_days)),
        meta=_meta(source, section, seed), first=first_days(days, features), truth=truth, targets=targets)


def counts(cohort: Cohort) -> dict[str, Any]:
    """What the cohort holds.

    Returns:
        "splits": for train, validation and test the patients, visits (calendar-day records before the window, as in the
        paper's Table 3), patients with label 1 and 0 (`positive`, `negative`), and visits of each; "total": the same
        for all; "window": rows that the window of the newest days leaves; "attrition": the steps.
    """
    sizes = cohort.stays.select("stay_id", "split")
    rows = cohort.visits.join(sizes, on="stay_id")
    left = {name: rows.filter(pl.col("split") == name).height for name in SPLITS}
    return {
        "splits": {name: _tally(cohort.stays.filter(pl.col("split") == name)) for name in SPLITS},
        "total": _tally(cohort.stays),
        "window": {"max_days": cohort.meta["max_days"], **left, "total": cohort.visits.height},
        "attrition": attrition.as_values(cohort.attrition)}


def _tally(stays: pl.DataFrame) -> dict[str, int]:
    dead, alive = (stays.filter(pl.col("label") == label) for label in (1, 0))
    return {"patients": stays["patient_id"].n_unique(), "visits": int(stays["days"].sum()),
            "positive": dead["patient_id"].n_unique(), "negative": alive["patient_id"].n_unique(),
            "visits_positive": int(dead["days"].sum()), "visits_negative": int(alive["days"].sum())}


def _days(source: Source, features: Catalogue) -> tuple[pl.DataFrame, list[Step]]:
    """Daily records; those of a source that aggregates while it reads have been through the bounds already."""
    if source.days is not None:
        return source.days, []
    events, bounds = plausible(source.events, features)
    return daily(source.records, events, features), bounds


def _kept_stays(source: Source, days: pl.DataFrame, min_visits: int) -> tuple[pl.DataFrame, list[Step]]:
    """Stays with at least `min_visits` daily records, with their number as `days`."""
    lengths = days.group_by("stay_id").agg(pl.len().cast(pl.Int32).alias("days"))
    stays = source.stays.join(lengths, on="stay_id", how="left", maintain_order="left")
    stays = stays.with_columns(pl.col("days").fill_null(0))
    kept = stays.filter(pl.col("days") >= min_visits).sort("stay_id")
    if not kept.height:
        raise DataError(f"none of {stays.height} stays has {min_visits} daily records", "a cohort holds stays",
                        "lower cohort.min_visits")
    lost = stays.height - kept.height
    return kept, [Step(f"stay with fewer than {min_visits} daily records: dropped", "stays", lost, lost, kept.height)]


def _with_split(stays: pl.DataFrame, source: Source, section: Section) -> pl.DataFrame:
    if section.split == "paper":
        if source.fixed_split is None:
            raise ConfigError(f"cohort.split=paper, and source {source.name} was read without it",
                              "split `paper` exists for TJH", "set cohort.split=stratified")
        split = source.fixed_split
    elif section.split == "external":
        split = external_split(stays.select("patient_id").unique())
    else:
        patients = stays.group_by("patient_id").agg(pl.col("label").max())
        draw = stratified_split if section.split == "stratified" else pinned_split
        split = draw(patients, section.test_share, section.validation_share, section.split_seed)
    placed = stays.join(split, on="patient_id", how="left", maintain_order="left")
    return placed.select(*STAYS.dtypes, "days")


def _window_step(stays: pl.DataFrame, visits: pl.DataFrame, max_days: int) -> Step:
    days = int(stays["days"].sum())
    newest = visits.filter(~pl.col("is_summary")).height
    summaries = visits.height - newest
    return Step(f"day older than the newest {max_days} of its stay: merged into {summaries} summaries", "days",
                days - newest, days - newest, newest)


def _meta(source: Source, section: Section, seed: int) -> dict[str, Any]:
    return {"source": source.name, "catalogue": source.catalogue, "outcome": section.outcome, "split": section.split,
            "split_seed": section.split_seed, "seed": seed, "min_visits": section.min_visits,
            "max_days": section.max_days, "clip_sd": section.clip_sd,
            "drop_after_discharge": section.drop_after_discharge, "files": dict(source.files),
            "features": list(catalogue(source.catalogue).names), **_choices(source, section)}


def _choices(source: Source, section: Section) -> dict[str, Any]:
    """What was chosen of an extract or dataset; nothing for sources without choices."""
    if source.name not in ("mimic_iv", "meds"):
        return {}
    chosen = section.mimic_iv if source.name == "mimic_iv" else section.meds
    hours = None if chosen.window == "whole" else chosen.hours
    # What happens after the stay is counted from its discharge; death in hospital has no such anchor.
    anchor = {"label_anchor": "discharge"} if section.outcome == "readmission" else {}
    return {"version": source.version, "unit": chosen.unit, "window": chosen.window, "hours": hours, **anchor}
