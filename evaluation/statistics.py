"""Bootstrap over patients: how far a measure could have come out otherwise on another test split of the same size.

A resample draws as many patients as there are, with replacement, and takes all their stays. It is held as the number of
times that each stay was drawn, W (B, n); all arms are measured on the same W, so that differences are paired. Measures
over all B resamples are computed at once from W and one sort of the risks; they equal scikit-learn's on each resample.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from contracts.errors import DataError
from evaluation.metrics import ON_ALL_STAYS, Floats, Ints, checked

LEVEL = 0.95
PATIENTS = ("patients", "positive_patients", "negative_patients")
_BLOCK = 4_000_000  # cells of W measured at once, so that a large test split needs no large memory
Measure = Callable[[Ints, Floats, NDArray[Any]], Floats]
Measured = dict[str, tuple[float, Floats]]  # measure -> on all stays, on each resample (B,)
_PATIENCE = 1000  # redraws for each wanted resample before the test split is called too small


@dataclass(frozen=True)
class Resamples:
    """B bootstrap resamples of n stays.

    Attributes:
        counts: times each stay was drawn, (B, n).
        redrawn: resamples that held one class only and were drawn again.
        of_stays: all stays are of one patient, so that stays were drawn: spreads are of that patient alone, and no
            difference may be told from them.
    """

    counts: NDArray[np.int32]
    redrawn: int
    of_stays: bool = False

    def first(self, count: int) -> Resamples:
        """The first `count` resamples: those that the same seed draws where only so many are asked for."""
        return replace(self, counts=self.counts[:count])


@dataclass(frozen=True)
class Summary:
    """A measure: its value on the whole test split, and mean, standard deviation (ddof 1) and 95 % interval (2.5 and
    97.5 percentile) over the resamples."""

    point: float
    mean: float
    sd: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """A measure of one arm minus that of the reference arm, on the same resamples.

    Attributes:
        point: difference on the whole test split.
        low, high: 95 % percentile interval.
        p: two-sided bootstrap p-value, at least 2 / (B + 1).
    """

    point: float
    low: float
    high: float
    p: float


def resample(labels: ArrayLike, count: int, seed: int, patients: Sequence[str] | None = None) -> Resamples:
    """Draws `count` resamples of patients in which both classes stand.

    Args:
        labels: (n,) of 0 and 1.
        patients: patient of each stay, (n,); None: each stay is a patient of its own.

    Raises:
        DataError: one class only, so few of one class that resamples with both are hardly ever drawn, or one patient
            alone, whose resamples would all be the same.
    """
    truth, _ = checked(labels, np.zeros(len(np.asarray(labels))))
    member = np.arange(truth.size) if patients is None else np.unique(np.asarray(patients), return_inverse=True)[1]
    people = int(member.max()) + 1
    if people < 2:
        raise DataError(f"{truth.size} stays of one patient", "resamples are of patients, at least 2",
                        "take more test stays (evaluation.stays)")
    draw = np.random.default_rng(seed)
    kept: list[NDArray[np.int32]] = []
    redrawn = 0
    while len(kept) < count:
        counts = np.bincount(draw.integers(people, size=people), minlength=people)[member]
        if 0 < counts @ truth < counts.sum():
            kept.append(counts.astype(np.int32))
            continue
        redrawn += 1
        if redrawn > count * _PATIENCE:
            raise DataError(f"{int(truth.sum())} positive of {truth.size} stays", "both classes stand in a resample",
                            "take more test stays (evaluation.stays)")
    return Resamples(np.stack(kept), redrawn)


def resample_all(labels: ArrayLike, count: int, seed: int, patients: Sequence[str] | None = None) -> Resamples:
    """`resample`; where all stays are of one patient, resamples of stays that say so (`of_stays`).

    For the end of a study: its figures are not lost because nothing can be said of other patients.
    """
    if patients is None or len(set(patients)) > 1:
        return resample(labels, count, seed, patients)
    return replace(resample(labels, count, seed), of_stays=True)


def patient_counts(labels: ArrayLike, patients: Sequence[str] | None = None) -> dict[str, int]:
    """Columns `PATIENTS`: all patients, and those with a stay of outcome 1 and of outcome 0 (some have both).

    Args:
        labels: (n,) of 0 and 1.
        patients: patient of each stay, (n,); None: each stay is a patient of its own.
    """
    truth = np.asarray(labels)
    who = np.arange(truth.size) if patients is None else np.asarray(patients)
    return dict(zip(PATIENTS, (np.unique(who[inside]).size for inside in (truth >= 0, truth == 1, truth == 0)),
                    strict=True))


def measure(name: str, labels: ArrayLike, risks: ArrayLike, resamples: Resamples) -> Floats:
    """One measure on each resample, (B,).

    Args:
        name: "auroc", "auprc" or "brier".
        labels, risks: (n,).

    Raises:
        DataError: labels or risks that `metrics.checked` refuses, or of another length than the resamples.
    """
    return on_each(_MEASURES[name], labels, risks, resamples)


def measured(names: Sequence[str], labels: ArrayLike, risks: ArrayLike, resamples: Resamples) -> Measured:
    """Several measures, each on all stays and on each resample. Arguments and errors as of `measure`."""
    return {name: (ON_ALL_STAYS[name](labels, risks), measure(name, labels, risks, resamples)) for name in names}


def on_each(function: Measure, labels: ArrayLike, risks: ArrayLike, resamples: Resamples) -> Floats:
    """Any measure on each resample, (B, ...).

    Args:
        function: labels (n,), risks (n,), times that each stay was drawn (b, n) -> (b, ...).
        labels, risks: (n,).

    Raises:
        DataError: as `measure` does.
    """
    truth, risk = checked(labels, risks)
    if truth.size != resamples.counts.shape[1]:
        raise DataError(f"{truth.size} stays, resamples of {resamples.counts.shape[1]}", "the same stays",
                        "resample the stays that are judged")
    step = max(1, _BLOCK // truth.size)
    return np.concatenate([function(truth, risk, resamples.counts[start:start + step])
                           for start in range(0, len(resamples.counts), step)])


def summary(point: float, values: Floats) -> Summary:
    """Mean, sd and interval of a measure over the resamples, beside its value on the whole split."""
    low, high = interval(values)
    return Summary(point, float(values.mean()), float(values.std(ddof=1)), low, high)


def difference(point: float, values: Floats, reference: Floats) -> Difference:
    """Paired difference to the reference, with p = min(1, 2 min(#{d <= 0} + 1, #{d >= 0} + 1) / (B + 1)).

    Args:
        point: difference on the whole split.
        values, reference: the measure of both arms on the same resamples, (B,).
    """
    gaps = values - reference
    low, high = interval(gaps)
    tail = min(int((gaps <= 0).sum()), int((gaps >= 0).sum())) + 1
    return Difference(point, low, high, min(1.0, 2.0 * tail / (gaps.size + 1)))


def interval(values: Floats) -> tuple[float, float]:
    """95 % percentile interval (2.5 and 97.5 percentile) of a measure over the resamples, (B,)."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def holm(values: ArrayLike) -> Floats:
    """p-values of one family, corrected so that the chance of any false finding in it stays at the level (Holm 1979).

    Args:
        values: (m,); the i-th smallest becomes max over j <= i of min(1, (m - j + 1) p_(j)).

    Returns:
        Corrected p-values in the order given, (m,).
    """
    p = np.asarray(values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)))
    return corrected


def holm_by(families: Sequence[Hashable], values: Sequence[float | None]) -> list[float | None]:
    """`holm` within each family.

    Args:
        families: family of each p-value, (m,).
        values: p-values, (m,); None where nothing was compared: it stays None and counts in no family.
    """
    rows: dict[Hashable, dict[int, float]] = {}
    for place, (family, value) in enumerate(zip(families, values, strict=True)):
        if value is not None:
            rows.setdefault(family, {})[place] = value
    corrected = {place: float(value) for family in rows.values()
                 for place, value in zip(family, holm(list(family.values())), strict=True)}
    return [corrected.get(place) for place in range(len(values))]


def _by_risk(truth: Ints, risk: Floats, counts: NDArray[Any]) -> tuple[Floats, Floats]:
    """Drawn positives and negatives at each distinct risk, ascending: both (B, U)."""
    order = np.argsort(risk, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(risk[order]) > 0])
    drawn = counts[:, order].astype(np.float64)
    positive = np.add.reduceat(drawn * truth[order], starts, axis=1)
    negative = np.add.reduceat(drawn * (1 - truth[order]), starts, axis=1)
    return positive, negative


def _auroc(truth: Ints, risk: Floats, counts: NDArray[Any]) -> Floats:
    """Mann-Whitney: share of positive-negative pairs in order, ties half."""
    positive, negative = _by_risk(truth, risk, counts)
    below = np.cumsum(negative, axis=1) - negative
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    return np.asarray((positive * (below + negative / 2)).sum(axis=1) / pairs)


def _auprc(truth: Ints, risk: Floats, counts: NDArray[Any]) -> Floats:
    """Average precision: sum over distinct thresholds of precision times the gain in recall."""
    positive, negative = (part[:, ::-1] for part in _by_risk(truth, risk, counts))
    hits = np.cumsum(positive, axis=1)
    called = hits + np.cumsum(negative, axis=1)
    precision = np.divide(hits, called, out=np.zeros_like(hits), where=called > 0)
    return np.asarray((precision * positive).sum(axis=1) / positive.sum(axis=1))


def _brier(truth: Ints, risk: Floats, counts: NDArray[Any]) -> Floats:
    return np.asarray(counts @ (risk - truth) ** 2 / counts.sum(axis=1))


_MEASURES: dict[str, Measure] = {"auroc": _auroc, "auprc": _auprc, "brier": _brier}
