"""Measures of a risk against a label. In go two vectors of n stays, out comes one number.

AUROC, AUPRC (average precision, no interpolation) and Brier score are scikit-learn's. Calibration: `calibration`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from contracts.errors import DataError

MEASURES = ("auroc", "auprc", "brier")
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def checked(labels: ArrayLike, risks: ArrayLike) -> tuple[Ints, Floats]:
    """Labels (n,) and risks (n,) as arrays.

    Raises:
        DataError: no rows, other lengths, a label beside 0 and 1, only one class, or a risk outside [0, 1] or not
            finite.
    """
    truth, risk = np.asarray(labels), np.asarray(risks, dtype=np.float64)
    if truth.ndim != 1 or truth.shape != risk.shape or not truth.size:
        raise DataError(f"labels have shape {truth.shape}, risks {risk.shape}", "one risk for each label, at least one",
                        "judge the same stays that are labelled")
    odd = sorted({str(value) for value in truth[(truth != 0) & (truth != 1)]})
    if odd:
        raise DataError(f"labels hold {', '.join(odd[:5])}", "a label is 0 or 1", "check the cohort's labels")
    if truth.min() == truth.max():
        raise DataError(f"all {truth.size} labels are {int(truth[0])}", "AUROC and AUPRC need both classes",
                        "take more test stays (evaluation.stays) or a stratified split")
    wrong = risk[~((risk >= 0.0) & (risk <= 1.0))]
    if wrong.size:
        raise DataError(f"a risk is {wrong[0]}", "a risk lies in [0, 1]", "check the arm that gave it")
    return truth.astype(np.int64), risk


def auroc(labels: ArrayLike, risks: ArrayLike) -> float:
    """Area under the ROC curve; ties count half. Raises DataError as `checked` does."""
    return float(roc_auc_score(*checked(labels, risks)))


def auprc(labels: ArrayLike, risks: ArrayLike) -> float:
    """Average precision, the step-wise area under the precision-recall curve. Raises DataError as `checked` does."""
    return float(average_precision_score(*checked(labels, risks)))


def brier(labels: ArrayLike, risks: ArrayLike) -> float:
    """Mean squared difference of risk and label, 0 is best. Raises DataError as `checked` does."""
    return float(brier_score_loss(*checked(labels, risks)))


ON_ALL_STAYS: Mapping[str, Callable[[ArrayLike, ArrayLike], float]] = {"auroc": auroc, "auprc": auprc, "brier": brier}


def parse_rate(verdicts: pl.DataFrame) -> float:
    """Share of answers that held a readable probability.

    Raises:
        DataError: there are no verdicts.
    """
    if not verdicts.height:
        raise DataError("no verdicts", "a parse rate needs at least one answer", "judge at least one stay")
    return float(verdicts["parsed"].cast(pl.Float64).sum() / verdicts.height)
