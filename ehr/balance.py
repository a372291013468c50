"""Whether the splits and features of a cohort can be used: no shared patient, alike up to chance, fitted on training.

In: a `Cohort`. Out: findings; each check yields none, one or more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import polars as pl

from contracts.frames import SPLITS, feature_columns
from ehr.distributions import chi_square, kruskal_wallis
from ehr.finding import Finding, some
from ehr.folder import Cohort
from ehr.scale import Moments, fit
from ehr.sources.source import Source

# Chance of a false alarm over all tests of one check together (Bonferroni).
CHANCE = 0.01
TOLERANCE = 1e-9


def torn_patients(cohort: Cohort, source: Source | None) -> Iterator[Finding]:  # noqa: ARG001 (all checks are called alike)
    """A patient in two splits."""
    places = cohort.stays.group_by("patient_id").agg(pl.col("split").n_unique())
    torn = places.filter(pl.col("split") > 1).height
    if torn:
        yield Finding("error", "a patient is in exactly one split", f"{torn} patients are in more than one split",
                      "split by patient, not by stay", torn)


def fitted_beyond_training(cohort: Cohort, source: Source | None) -> Iterator[Finding]:  # noqa: ARG001
    """Scaling other than that of the training split."""
    rule = "scaling is fitted on the training split alone"
    if "clip_sd" not in cohort.meta:
        yield Finding("error", rule, "the cohort's meta holds no clip_sd, so its scaling cannot be checked",
                      "recompute the cohort", len(cohort.scaling))
        return
    fresh = fit(cohort.filled, cohort.stays, feature_columns(cohort.filled), float(cohort.meta["clip_sd"]))
    odd = [name for name in sorted({*fresh, *cohort.scaling}) if not _same(fresh.get(name), cohort.scaling.get(name))]
    if odd:
        yield Finding("error", rule,
                      f"the scaling of {some(odd)} is not that of the training split",
                      "fit with `ehr.scale.fit` after the split", len(odd))


def unlike_splits(cohort: Cohort, source: Source | None) -> Iterator[Finding]:  # noqa: ARG001
    """Age, sex, days, last values or missingness that differ between the splits beyond chance.

    One stay a patient enters, the first: stays of one patient are alike, and all lie in one split.
    """
    stays = _first_stays(cohort)
    names = feature_columns(cohort.filled)
    last = cohort.filled.sort("stay_id", "visit").group_by("stay_id").agg(pl.col(*names).last())
    wide = stays.with_columns(pl.col("sex").eq("male").cast(pl.Float64)).join(last, on="stay_id")
    parts = [wide.filter(pl.col("split") == split) for split in SPLITS]
    tests = {name: kruskal_wallis([_values(part, name) for part in parts]) for name in ("age", "sex", "days", *names)}
    sizes = [part.height for part in parts]
    for name in names:
        tests[f"{name} (missing)"] = chi_square([part[name].null_count() for part in parts], sizes)
    odd = sorted((p, name) for name, p in tests.items() if p < CHANCE / len(tests))
    if odd:
        yield Finding("warning", "training, validation and test are alike up to chance",
                      f"they differ in {some([f'{name} (p = {p:.1g})' for p, name in odd])}",
                      "look at how the split was made; do not read the test result as one on like patients", len(odd))


def unlike_prevalence(cohort: Cohort, source: Source | None) -> Iterator[Finding]:  # noqa: ARG001
    """A share of patients with label 1 that differs between the splits beyond chance."""
    patients = cohort.stays.group_by("patient_id").agg(pl.col("label").max(), pl.col("split").first())
    parts = [patients.filter(pl.col("split") == split)["label"] for split in SPLITS]
    p = chi_square([int(part.sum()) for part in parts], [part.len() for part in parts])
    if p < CHANCE:
        shares = ", ".join(f"{split} {100 * int(part.sum()) / max(part.len(), 1):.1f} %"
                           for split, part in zip(SPLITS, parts, strict=True))
        yield Finding("warning", "the splits hold the same share of label 1 up to chance",
                      f"patients with label 1: {shares} (p = {p:.1g})", "set cohort.split=stratified",
                      patients.height)


def missing_features(cohort: Cohort, source: Source | None) -> Iterator[Finding]:  # noqa: ARG001
    """Features never measured in training, and features measured at every visit of all."""
    train = _train_rows(cohort)
    names = feature_columns(cohort.visits) if train.height else []  # a second site trains nothing
    absent = [name for name in names if train[name].null_count() == train.height]
    if absent:
        yield Finding("warning", "each feature is measured in the training split",
                      f"never measured there: {some(absent)}",
                      "correct the reader of this source, or leave the feature out of the prompts", len(absent))
    full = [name for name in names if cohort.visits.height and not cohort.visits[name].null_count()]
    if full:
        yield Finding("warning", "a measurement is missing on some days, as in any hospital",
                      f"measured at every visit: {some(full)}",
                      "make sure that the source was not filled before, possibly with later values", len(full))


def constant_features(cohort: Cohort, source: Source | None) -> Iterator[Finding]:  # noqa: ARG001
    """Features of one single value."""
    train = _train_rows(cohort)
    constant = [name for name in feature_columns(train) if train[name].drop_nulls().n_unique() == 1]
    if constant:
        yield Finding("warning", "a feature takes more than one value in the training split",
                      f"one value only: {some(constant)}",
                      "check its unit and plausible range, or leave the feature out of the prompts", len(constant))


def _same(fresh: Moments | None, stored: Moments | None) -> bool:
    if fresh is None or stored is None:
        return False
    pairs = ((getattr(fresh, name), getattr(stored, name)) for name in Moments.__dataclass_fields__)
    return all(math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE) for one, other in pairs)


def _first_stays(cohort: Cohort) -> pl.DataFrame:
    return cohort.stays.sort("admitted_at", "stay_id").unique("patient_id", keep="first", maintain_order=True)


def _train_rows(cohort: Cohort) -> pl.DataFrame:
    train = cohort.stays.filter(pl.col("split") == "train")
    return cohort.visits.join(train, on="stay_id", how="semi")


def _values(part: pl.DataFrame, name: str) -> np.ndarray:
    return part[name].drop_nulls().cast(pl.Float64).to_numpy()
