"""Decision curves: what acting on a risk is worth at a threshold (Vickers and Elkin 2006).

In go labels and risks of n stays, out comes the net benefit at each threshold t: TP/n - FP/n * t/(1 - t), in true
positives for each stay. Whoever has a risk of t or more is treated.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from contracts.errors import DataError
from evaluation.metrics import Floats, Ints, checked

THRESHOLDS = np.arange(1, 100) / 100
TREAT_NONE = 0.0


def net_benefit(labels: ArrayLike, risks: ArrayLike, thresholds: Floats = THRESHOLDS) -> Floats:
    """Net benefit at each threshold, (T,).

    Raises:
        DataError: as `metrics.checked` does, or a threshold outside ]0, 1[.
    """
    truth, risk = checked(labels, risks)
    return net_benefits(truth, risk, np.ones((1, truth.size)), thresholds)[0]


def net_benefits(truth: Ints, risk: Floats, counts: NDArray[Any], thresholds: Floats = THRESHOLDS) -> Floats:
    """Net benefit at each threshold on each resample, (B, T).

    Args:
        truth, risk: (n,).
        counts: times each stay was drawn, (B, n).
        thresholds: (T,), in ]0, 1[.
    """
    odds = _odds(thresholds)
    treated = risk[:, None] >= thresholds
    gain = np.where(truth[:, None] == 1, 1.0, -odds) * treated
    drawn = counts.astype(np.float64)
    return np.asarray(drawn @ gain / drawn.sum(axis=1, keepdims=True))


def treat_all(labels: ArrayLike, thresholds: Floats = THRESHOLDS) -> Floats:
    """Net benefit of treating everybody, (T,): prevalence - (1 - prevalence) t/(1 - t). Treating nobody is worth 0.

    Raises:
        DataError: as `metrics.checked` does, or a threshold outside ]0, 1[.
    """
    truth, _ = checked(labels, np.zeros(len(np.asarray(labels))))
    prevalence = truth.mean()
    return np.asarray(prevalence - (1 - prevalence) * _odds(thresholds))


def _odds(thresholds: Floats) -> Floats:
    wrong = thresholds[~((thresholds > 0.0) & (thresholds < 1.0))]
    if wrong.size:
        raise DataError(f"threshold {wrong[0]}", "a threshold lies between 0 and 1", "leave it out")
    return np.asarray(thresholds / (1 - thresholds))
