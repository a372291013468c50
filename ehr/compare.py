"""Two versions of a cohort: which stays came, went or changed, and which distributions moved.

In: two `Cohort`s of one catalogue. Out: a `Comparison`; `ehr.comparison_files` writes it. Stays are matched by stay_id.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from contracts.errors import DataError
from contracts.frames import feature_columns
from ehr.distributions import kolmogorov_smirnov, standardised_difference
from ehr.finding import Finding, as_values, some
from ehr.folder import Cohort

SHIFTED = 0.1
_TIMES = ("admitted_at", "discharged_at")
_SHIFTS = {"name": pl.String, "smd_last": pl.Float64, "smd_all": pl.Float64, "ks_last": pl.Float64,
           "ks_all": pl.Float64, "missing_old": pl.Float64, "missing_new": pl.Float64, "missing_difference": pl.Float64}


@dataclass(frozen=True)
class Comparison:
    """What `new` has that `old` has not.

    Attributes:
        counts: stays old, new, common, added, removed, changed, split_changed, label_changed.
        labels: "0 to 1" and "1 to 0": how many common stays changed so.
        settings: dotted key of the cohorts' meta to [old, new], where they differ (source, versions, files, settings).
        stays: stay_id, change ("added", "removed", "changed"), what (which parts of a changed stay, comma-separated).
        shifts: one row a feature, and age, male, days, label: standardised mean difference (new - old) and
            Kolmogorov-Smirnov statistic on the last visit (after LOCF) and on all visits (as measured), share of visits
            without a measurement in both and its difference. Null = nothing to compare; all visits and missingness are
            null where a stay has one value.
        findings: a split that changed is an error; changed labels and shifts are warnings.
    """

    counts: Mapping[str, int]
    labels: Mapping[str, int]
    settings: Mapping[str, list[Any]]
    stays: pl.DataFrame = field(repr=False)
    shifts: pl.DataFrame = field(repr=False)
    findings: tuple[Finding, ...]


def compare(old: Cohort, new: Cohort) -> Comparison:
    """Compares two cohorts.

    Raises:
        DataError: their catalogues differ.
    """
    if (old.meta["catalogue"], old.visits.columns) != (new.meta["catalogue"], new.visits.columns):
        raise DataError(f"cohorts of the catalogues {old.meta['catalogue']} and {new.meta['catalogue']}",
                        "two cohorts of one catalogue, with the same features, can be compared",
                        "name two versions of the same cohort")
    pairs = old.stays.join(new.stays, on="stay_id", suffix=".new").sort("stay_id")
    stays = _stays(old, new, pairs)
    labels = {f"{one} to {other}": pairs.filter((pl.col("label") == one) & (pl.col("label.new") == other)).height
              for one, other in ((0, 1), (1, 0))}
    kinds = stays["change"].to_list()
    counts = {"old": old.stays.height, "new": new.stays.height, "common": pairs.height,
              **{kind: kinds.count(kind) for kind in ("added", "removed", "changed")},
              "split_changed": pairs.filter(pl.col("split") != pl.col("split.new")).height,
              "label_changed": sum(labels.values())}
    shifts = _shifts(old, new)
    return Comparison(counts=counts, labels=labels, settings=_settings(old.meta, new.meta), stays=stays, shifts=shifts,
                      findings=tuple(_findings(old, new, counts, labels, shifts)))


def shifted(shifts: pl.DataFrame) -> pl.DataFrame:
    """Rows of `Comparison.shifts` beyond SHIFTED on the last visit or on all visits."""
    return shifts.filter(pl.max_horizontal(pl.col("smd_last", "smd_all").abs()) > SHIFTED)


def as_dict(comparison: Comparison) -> dict[str, Any]:
    """JSON-ready; without identifiers. An infinite difference (two constants) becomes "inf" or "-inf"."""
    rows = [{name: str(value) if isinstance(value, float) and math.isinf(value) else value
             for name, value in row.items()} for row in comparison.shifts.iter_rows(named=True)]
    return {"counts": dict(comparison.counts), "labels": dict(comparison.labels),
            "settings": dict(comparison.settings), "shifts": rows, "findings": as_values(comparison.findings)}


def _stays(old: Cohort, new: Cohort, pairs: pl.DataFrame) -> pl.DataFrame:
    visits = _changed_visits(old.visits, new.visits)
    differs = {name: pl.col(name).ne_missing(pl.col(f"{name}.new")) for name in ("label", "age", "sex", *_TIMES)}
    parts = {"visits": pl.col("stay_id").is_in(visits.implode()), **{name: differs[name] for name in differs
                                                                     if name not in _TIMES},
             "times": pl.any_horizontal(*(differs[name] for name in _TIMES))}
    what = pl.concat_str([pl.when(holds).then(pl.lit(name)) for name, holds in parts.items()], separator=", ",
                         ignore_nulls=True)
    changed = pairs.select("stay_id", what.alias("what")).filter(pl.col("what") != "")
    frames = {"added": new.stays.join(old.stays, on="stay_id", how="anti"),
              "removed": old.stays.join(new.stays, on="stay_id", how="anti"), "changed": changed}
    return pl.concat([frame.select("stay_id", pl.lit(change).alias("change"),
                                   pl.col("what") if change == "changed" else pl.lit("").alias("what"))
                      for change, frame in frames.items()]).sort("change", "stay_id")


def _changed_visits(old: pl.DataFrame, new: pl.DataFrame) -> pl.Series:
    """stay_id of stays with a visit that is not in both, or with any value that differs."""
    both = old.join(new, on=["stay_id", "visit"], how="full", coalesce=True, suffix=".new")
    columns = [name for name in old.columns if name not in ("stay_id", "visit")]
    differs = pl.any_horizontal(*(pl.col(name).ne_missing(pl.col(f"{name}.new")) for name in columns))
    return both.filter(differs)["stay_id"].unique()


def _shifts(old: Cohort, new: Cohort) -> pl.DataFrame:
    names = feature_columns(old.visits)
    last = [cohort.filled.sort("stay_id", "visit").group_by("stay_id").agg(pl.col(*names).last())
            for cohort in (old, new)]
    rows = [_feature(name, last, (old.visits, new.visits)) for name in names]
    facts = [cohort.stays.select("age", pl.col("sex").eq("male").alias("male"), "days", "label").cast(pl.Float64)
             for cohort in (old, new)]
    for name in facts[0].columns:
        one, other = (frame[name].to_numpy() for frame in facts)
        rows.append({"name": name, "smd_last": standardised_difference(one, other),
                     "ks_last": kolmogorov_smirnov(one, other)})
    return pl.DataFrame(rows, schema=_SHIFTS).with_columns(pl.selectors.float().fill_nan(None))


def _feature(name: str, last: list[pl.DataFrame], visits: tuple[pl.DataFrame, pl.DataFrame]) -> dict[str, Any]:
    ends, rows = [_values(frame, name) for frame in last], [_values(frame, name) for frame in visits]
    missing = [frame[name].null_count() / frame.height if frame.height else math.nan for frame in visits]
    return {"name": name, "smd_last": standardised_difference(*ends), "smd_all": standardised_difference(*rows),
            "ks_last": kolmogorov_smirnov(*ends), "ks_all": kolmogorov_smirnov(*rows), "missing_old": missing[0],
            "missing_new": missing[1], "missing_difference": missing[1] - missing[0]}


def _values(frame: pl.DataFrame, name: str) -> np.ndarray:
    return frame[name].drop_nulls().to_numpy()


def _settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, list[Any]]:
    before, after = dict(_flat(old)), dict(_flat(new))
    return {key: [before.get(key), after.get(key)] for key in sorted({*before, *after})
            if before.get(key) != after.get(key)}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _findings(old: Cohort, new: Cohort, counts: Mapping[str, int], labels: Mapping[str, int],
              shifts: pl.DataFrame) -> Iterator[Finding]:
    patients = [cohort.stays.group_by("patient_id").agg(pl.col("split").first()) for cohort in (old, new)]
    moved = patients[0].join(patients[1], on="patient_id").filter(pl.col("split") != pl.col("split_right")).height
    if counts["split_changed"] or moved:
        yield Finding("error", "a patient stays in the split of the older version",
                      f"the split of {counts['split_changed']} stays and {moved} patients changed",
                      "do not compare results of the two versions: what one has trained on, the other tests",
                      max(counts["split_changed"], moved))
    if counts["label_changed"]:
        words = ", ".join(f"{count} from {way}" for way, count in labels.items() if count)
        yield Finding("warning", "labels of stays in both versions are the same", f"labels changed: {words}",
                      "find out why in the source or its reader", counts["label_changed"])
    names = shifted(shifts)["name"].to_list()
    if names:
        yield Finding("warning", f"standardised mean differences are at most {SHIFTED}", f"shifted: {some(names)}",
                      "train anew on the new version, and do not pool the results", len(names))
