"""Recalibration after the fact: a map from risk to risk, learnt on validation stays and never on the test split.

In go labels and risks of validation, out comes a function to apply to other risks. Platt's map keeps the ranking;
isotonic regression keeps it up to ties.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression

from evaluation.calibration import logistic, logit
from evaluation.metrics import Floats, checked

Recalibration = Callable[[Floats], Floats]
# Validation stays below which two parameters, and steps all the more, are mostly noise.
ENOUGH = 50


def platt(labels: ArrayLike, risks: ArrayLike) -> Recalibration:
    """Logistic recalibration on the logit of the risk (Platt 1999), with his targets (N+ + 1)/(N+ + 2) and 1/(N- + 2).

    The targets keep the fit finite where a threshold parts the labels. If all risks are the same, the map is their
    (smoothed) share of label 1.

    Args:
        labels, risks: of validation stays, (n,).

    Raises:
        DataError: as `metrics.checked` does.
    """
    truth, risk = checked(labels, risks)
    positive, negative = int(truth.sum()), int((1 - truth).sum())
    targets = np.where(truth == 1, (positive + 1) / (positive + 2), 1 / (negative + 2))
    constant, slope = logistic(logit(risk), targets, np.ones((1, truth.size)))[0]
    if not np.isfinite(slope):
        constant, slope = float(np.log(targets.mean() / (1 - targets.mean()))), 0.0
    return lambda other: np.asarray(expit(constant + slope * logit(other)))


def isotonic(labels: ArrayLike, risks: ArrayLike) -> Recalibration:
    """Isotonic regression (Zadrozny and Elkan 2002): the rising step-wise map with least squared error, linear between.

    Risks beyond those of validation get the value at the edge.

    Args:
        labels, risks: of validation stays, (n,).

    Raises:
        DataError: as `metrics.checked` does.
    """
    truth, risk = checked(labels, risks)
    fitted = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(risk, truth)
    return lambda other: np.asarray(fitted.predict(other))


METHODS: dict[str, Callable[[ArrayLike, ArrayLike], Recalibration]] = {"platt": platt, "isotonic": isotonic}


def few(stays: object) -> int | None:
    """The number of validation stays where it is below `ENOUGH`, else None (also where there is none)."""
    return stays if isinstance(stays, int) and stays < ENOUGH else None
