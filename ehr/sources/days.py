"""From measurements to calendar-day records, a part of the patients at a time; patients that did not change not again.

In: folders of parts (`ehr.sources.parts`) and the stays' windows. Out: `Days`: one row a calendar day of a stay with
any measurement, and attrition. `<cache>/days-<rules>` keeps both by part, with a digest of each patient's measurements
and windows; a later call takes over the rows of every patient whose digest is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from ehr.aggregate import DIGITS
from ehr.attrition import Step
from ehr.sources.aggregation import COUNTS, Rules, Windows, aggregate
from ehr.sources.drafts import drafted
from ehr.sources.parts import PARTS, mix, part_of

FORMAT = 1


@dataclass(frozen=True)
class Days:
    """R stay-days.

    Attributes:
        days: stay (Int64), date, then the F features (Float64, null = not measured that day); by stay and date.
        steps: attrition.
        computed, reused: patients.
    """

    days: pl.DataFrame = field(repr=False)
    steps: tuple[Step, ...]
    computed: int
    reused: int


@dataclass(frozen=True)
class _Work:
    """What all parts share."""

    known: Rules
    folders: Sequence[Path]
    windows: pl.DataFrame
    digests: pl.DataFrame
    old: Path
    unchanged: pl.Series
    out: Path


def daily_records(folders: Sequence[Path], windows: pl.DataFrame, cache: Path, known: Rules,
                  workers: int = 2) -> Days:
    """Aggregates all measurements of the stays inside their windows.

    Args:
        folders: each with parts and `patients.parquet`.
        windows: stay, subject (Int64), begin, end (Int64, seconds since 1970, both included); one row a stay, no two of
            one patient overlap.
        cache: where the rows of finished patients lie.
        known: what the features are.
        workers: parts worked on at once.

    Raises:
        StorageError: the disk is full or not writable.
    """
    place = cache / f"days-{known.digest[:8]}-{FORMAT}"
    digests = _digests(folders, windows)
    with drafted(place) as draft:
        work = _Work(known, folders, windows, digests, place, _unchanged(place, digests), draft)
        with ThreadPoolExecutor(workers) as pool:
            parts = list(pool.map(lambda part: _part(work, part), range(PARTS)))
        digests.write_parquet(draft / "patients.parquet")
    names = known.catalogue.names
    days = pl.concat([days for days, _ in parts]).drop("subject").sort("stay", "date").with_columns(
        pl.col(item.name).round_sig_figs(DIGITS) for item in known.catalogue if item.kind == "numeric")
    totals = pl.concat([counts for _, counts in parts]).drop("subject").sum()
    return Days(days.select("stay", "date", *names), _steps(totals.row(0, named=True), known),
                digests.height - work.unchanged.len(), work.unchanged.len())


def _part(work: _Work, part: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Days and counts by patient of one part; also written for the next call."""
    subjects = work.digests.filter(pl.col("part") == part)["subject"]
    kept = subjects.filter(subjects.is_in(work.unchanged.implode()))
    days: list[pl.DataFrame] = []
    counts: list[pl.DataFrame] = []
    if kept.len():
        for name, frames in (("days", days), ("counts", counts)):
            old = pl.read_parquet(work.old / f"{name}-{part:03d}.parquet")
            frames.append(old.filter(pl.col("subject").is_in(kept.implode())))
    if kept.len() < subjects.len():
        fresh = subjects if not kept.len() else subjects.filter(~subjects.is_in(kept.implode()))
        measured = [_measurements(folder, part, fresh, whole=not kept.len()) for folder in work.folders]
        windows = work.windows.filter(pl.col("subject").is_in(fresh.implode())).sort("subject", "begin")
        new_days, new_counts = aggregate(measured, Windows.of(windows), work.known)
        days.append(new_days)
        counts.append(new_counts)
    names = work.known.catalogue.names
    whole_days, whole_counts = pl.concat(days or [_no_days(names)]), pl.concat(counts or [_no_counts(names)])
    whole_days.write_parquet(work.out / f"days-{part:03d}.parquet", compression="lz4")
    whole_counts.write_parquet(work.out / f"counts-{part:03d}.parquet", compression="lz4")
    return whole_days, whole_counts


def _measurements(folder: Path, part: int, subjects: pl.Series, *, whole: bool) -> pl.DataFrame:
    """subject, time, feature, value of these patients; where some are asked for, only their row groups are read."""
    path = folder / f"part-{part:03d}.parquet"
    columns = ["subject", "time", "feature", "value"]
    if whole:
        return pl.read_parquet(path, columns=columns).filter(pl.col("subject").is_in(subjects.implode()))
    return pl.scan_parquet(path).select(columns).filter(pl.col("subject").is_in(subjects.to_list())).collect()


def _no_days(names: Sequence[str]) -> pl.DataFrame:
    return pl.DataFrame(schema={"subject": pl.Int64, "stay": pl.Int64, "date": pl.Date,
                                **dict.fromkeys(names, pl.Float64)})


def _no_counts(names: Sequence[str]) -> pl.DataFrame:
    return pl.DataFrame(schema=dict.fromkeys(("subject", *COUNTS, *names), pl.Int64))


def _digests(folders: Sequence[Path], windows: pl.DataFrame) -> pl.DataFrame:
    """subject, digest, part of each patient with a stay: of its measurements in all tables and of its windows."""
    own = np.zeros(windows.height, np.uint64)
    for name in ("stay", "subject", "begin", "end"):
        own = mix(own + windows[name].to_numpy().astype(np.int64).view(np.uint64))
    subjects, digests = [windows["subject"].to_numpy()], [own]
    for number, folder in enumerate(folders):
        patients = pl.read_parquet(folder / "patients.parquet", columns=["subject", "digest"])
        patients = patients.filter(pl.col("subject").is_in(windows["subject"].unique().implode()))
        subjects.append(patients["subject"].to_numpy())
        digests.append(mix(patients["digest"].to_numpy() + np.uint64(number)))
    subject, digest = np.concatenate(subjects), np.concatenate(digests)
    order = np.argsort(subject, kind="stable")
    distinct, starts = np.unique(subject[order], return_index=True)
    # The sum wraps around at 2^64 and does not depend on the order.
    totals = np.add.reduceat(digest[order], starts) if distinct.size else np.empty(0, np.uint64)
    return pl.DataFrame({"subject": distinct, "digest": totals, "part": part_of(distinct)})


def _unchanged(place: Path, digests: pl.DataFrame) -> pl.Series:
    """Patients whose rows of the last call are still right."""
    try:
        old = pl.read_parquet(place / "patients.parquet", columns=["subject", "digest"])
    except (OSError, pl.exceptions.PolarsError):
        return pl.Series("subject", [], dtype=pl.Int64)
    return digests.join(old, on=["subject", "digest"], how="semi")["subject"]


def _steps(totals: dict[str, int], known: Rules) -> tuple[Step, ...]:
    left = totals["measurements"]
    steps = [Step("measurement of a patient with a stay", "values", left, 0, left)]
    for name, rule in (("outside", "outside of all stays and windows"),
                       ("repeated", "repeats stay, time, feature and value")):
        left -= totals[name]
        steps.append(Step(f"measurement {rule}: dropped", "values", totals[name], totals[name], left))
    left += totals["summed"]
    steps.append(Step("Glasgow coma scale total: sum of its parts charted at one moment", "values", totals["summed"], 0,
                      left))
    steps.append(Step("inspired oxygen given as a fraction: taken as percent", "values", totals["fractions"], 0, left))
    for item in known.catalogue:
        if totals[item.name]:
            left -= totals[item.name]
            rule = f"{item.name} outside {item.low:g} to {item.high:g} {item.unit}".rstrip()
            steps.append(Step(f"{rule}: dropped", "values", totals[item.name], totals[item.name], left))
    return tuple(steps)
