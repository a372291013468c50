"""Calibration: whether a risk of 30 % comes true in 30 of 100 stays.

In go labels and risks of n stays, out come the reliability curve, the expected calibration error, and calibration slope
and intercept (Cox 1958; Van Calster et al. 2019, "Calibration: the Achilles heel of predictive analytics"). Bins are
scikit-learn's (`calibration_curve`) and Guo et al.'s (2017): an edge belongs to the bin below it.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from evaluation.metrics import Floats, Ints, checked
from evaluation.statistics import Resamples, interval, on_each

BINS = 10
EDGE = 1e-3  # risks are kept this far from 0 and 1 before their logit is taken: a stated "0.00" has none
Strategy = Literal["uniform", "quantile"]
SCHEMA: dict[str, Any] = {"bin": pl.Int64, "n": pl.Int64, "mean_risk": pl.Float64, "observed": pl.Float64}
_STEPS, _LONGEST, _DONE = 60, 2.0, 1e-9
_HALVINGS, _NO_FALL, _SMALL = 30, 1e-10, 1e-7  # of a step of `logistic`; both sizes relative
_SPREAD = 1e-12  # spread of the logits below which all are the same, and relative curvature below which it is gone
_LOST = 0.05  # share of resamples without a slope above which it has no interval


def bin_of(risks: Floats, strategy: Strategy = "uniform", bins: int = BINS) -> Ints:
    """Bin of each risk, (n,): equally wide bins of [0, 1], or bins of (nearly) equally many stays."""
    shares = np.linspace(0.0, 1.0, bins + 1)
    edges = shares if strategy == "uniform" else np.percentile(risks, shares * 100)
    return np.searchsorted(edges[1:-1], risks).astype(np.int64)


def reliability(labels: ArrayLike, risks: ArrayLike, strategy: Strategy = "uniform", bins: int = BINS
                ) -> pl.DataFrame:
    """The reliability curve: one row for each bin that holds a stay, columns `SCHEMA`, all shares.

    Raises:
        DataError: as `metrics.checked` does.
    """
    truth, risk = checked(labels, risks)
    place = bin_of(risk, strategy, bins)
    size = np.bincount(place, minlength=bins)
    used = np.flatnonzero(size)
    mean, observed = (np.bincount(place, weights=values, minlength=bins)[used] / size[used] for values in (risk, truth))
    return pl.DataFrame({"bin": used, "n": size[used], "mean_risk": mean, "observed": observed}, schema=SCHEMA)


def ece(labels: ArrayLike, risks: ArrayLike, strategy: Strategy = "uniform", bins: int = BINS) -> float:
    """Expected calibration error (Guo et al. 2017): sum_b n_b/n |mean risk_b - observed_b|, 0 is best.

    Raises:
        DataError: as `metrics.checked` does.
    """
    curve = reliability(labels, risks, strategy, bins)
    gaps = (curve["mean_risk"] - curve["observed"]).abs().to_numpy()
    return float(np.average(gaps, weights=curve["n"].to_numpy()))


def slope(labels: ArrayLike, risks: ArrayLike) -> float:
    """Calibration slope b of logit P(label = 1) = a + b logit(risk); 1 is best, below 1 the risks are too extreme.

    Returns:
        The slope; NaN if all risks are the same, or if a threshold parts the labels (then no finite slope fits best).

    Raises:
        DataError: as `metrics.checked` does.
    """
    truth, risk = checked(labels, risks)
    return float(slopes(truth, risk, np.ones((1, truth.size)))[0])


def intercept(labels: ArrayLike, risks: ArrayLike) -> float:
    """Calibration in the large: a of logit P(label = 1) = a + logit(risk); 0 is best, above 0 the risks are too low.

    Raises:
        DataError: as `metrics.checked` does.
    """
    truth, risk = checked(labels, risks)
    return float(intercepts(truth, risk, np.ones((1, truth.size)))[0])


def slopes(truth: Ints, risk: Floats, counts: NDArray[Any]) -> Floats:
    """Calibration slope on each resample, (B,); see `slope`."""
    return logistic(logit(risk), truth, counts)[:, 1]


def intercepts(truth: Ints, risk: Floats, counts: NDArray[Any]) -> Floats:
    """Calibration in the large on each resample, (B,), by Newton's steps; see `intercept`."""
    found, scores, drawn = np.zeros(len(counts)), logit(risk), counts.astype(np.float64)
    for _ in range(_STEPS):
        expected = expit(found[:, None] + scores)
        step = (drawn * (truth - expected)).sum(axis=1) / (drawn * expected * (1 - expected)).sum(axis=1)
        step = np.clip(step, -_LONGEST, _LONGEST)
        found += step
        if np.abs(step).max() < _DONE:
            break
    return found


def logistic(scores: Floats, targets: NDArray[Any], counts: NDArray[Any]) -> Floats:
    """Unpenalised logistic regression on one score, fitted on each resample by Newton's steps.

    A step keeps its direction and is halved until the likelihood does not fall: cut in one coordinate alone it would
    lead elsewhere, where scores are nearly all the same but for a few.

    Args:
        scores: (n,).
        targets: (n,), in [0, 1].
        counts: weight of each stay, (B, n).

    Returns:
        Constant and slope, (B, 2); NaN where none fits best: one score only, or labels parted by a threshold.
    """
    middle, spread = float(scores.mean()), float(scores.std())
    if spread < _SPREAD:
        return np.full((len(counts), 2), np.nan)
    scaled, drawn = (scores - middle) / spread, counts.astype(np.float64)
    found, there = np.zeros((len(counts), 2)), np.zeros(len(counts), dtype=bool)
    fits = _likelihood(found, scaled, targets, drawn)
    for _ in range(_STEPS):
        step = _newton(found, scaled, targets, drawn)
        found, fits = _not_falling(found, fits, np.nan_to_num(step), scaled, targets, drawn)
        there = (np.abs(step) < _SMALL * np.maximum(1.0, np.abs(found))).all(axis=1)
        if (there | np.isnan(step).any(axis=1)).all():
            break
    found[~there] = np.nan
    return np.column_stack([found[:, 0] - found[:, 1] * middle / spread, found[:, 1] / spread])


def _newton(found: Floats, scaled: Floats, targets: NDArray[Any], drawn: Floats) -> Floats:
    """One whole step, (B, 2); NaN where the curvature is gone."""
    expected = expit(found[:, :1] + found[:, 1:] * scaled)
    weight, rest = drawn * expected * (1 - expected), drawn * (targets - expected)
    flat, tilt, bend = weight.sum(axis=1), weight @ scaled, weight @ scaled**2
    up, across = rest.sum(axis=1), rest @ scaled
    area = flat * bend - tilt**2
    area = np.where(area > _SPREAD * flat * bend, area, np.nan)
    return np.column_stack([(bend * up - tilt * across) / area, (flat * across - tilt * up) / area])


def _not_falling(found: Floats, fits: Floats, step: Floats, scaled: Floats, targets: NDArray[Any], drawn: Floats
                 ) -> tuple[Floats, Floats]:
    """Where the steps lead, (B, 2), each halved until the log-likelihood is not below `fits`, and that there, (B,)."""
    there, least = found + step, fits - _NO_FALL * (1.0 + np.abs(fits))
    after = _likelihood(there, scaled, targets, drawn)
    for _ in range(_HALVINGS):
        falling = ~(after >= least)
        if not falling.any():
            break
        step = step / 2
        there[falling] = (found + step)[falling]
        after[falling] = _likelihood(there[falling], scaled, targets, drawn[falling])
    return there, after


def _likelihood(found: Floats, scaled: Floats, targets: NDArray[Any], drawn: Floats) -> Floats:
    """Log-likelihood of constant and slope on each resample, (B,)."""
    scores = found[:, :1] + found[:, 1:] * scaled
    return np.asarray((drawn * (targets * scores - np.logaddexp(0.0, scores))).sum(axis=1))


def logit(risks: Floats) -> Floats:
    """log(p / (1 - p)) of risks kept within [EDGE, 1 - EDGE], (n,)."""
    kept = np.clip(risks, EDGE, 1 - EDGE)
    return np.asarray(np.log(kept / (1 - kept)))


def with_interval(name: str, labels: ArrayLike, risks: ArrayLike, resamples: Resamples
                  ) -> tuple[float | None, float | None, float | None]:
    """"slope" or "intercept" with the 95 % interval over the resamples: value, low, high.

    Resamples without a finite slope are left out; where they are more than one in twenty there is no interval.
    """
    point, each = (slope, slopes) if name == "slope" else (intercept, intercepts)
    value, values = point(labels, risks), on_each(each, labels, risks, resamples)
    finite = values[np.isfinite(values)]
    if not np.isfinite(value) or finite.size < (1 - _LOST) * values.size:
        return value if np.isfinite(value) else None, None, None
    return (value, *interval(finite))
