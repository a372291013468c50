import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from contracts.errors import DataError
from evaluation import calibration, metrics, recalibration


def _judged(size: int, seed: int, shift: float = 1.0, stretch: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and risks whose logit is stretched and shifted."""
    draw = np.random.default_rng(seed)
    scores = draw.normal(-0.5, 1.0, size)
    labels = (draw.random(size) < 1 / (1 + np.exp(-scores))).astype(int)
    return labels, 1 / (1 + np.exp(-(stretch * scores + shift)))


def test_platt_is_logistic_regression_on_the_logit() -> None:
    labels, risks = _judged(3000, 1)
    kept = np.clip(risks, calibration.EDGE, 1 - calibration.EDGE)
    scores = np.log(kept / (1 - kept))[:, None]
    wanted = LogisticRegression(C=np.inf, tol=1e-10).fit(scores, labels).predict_proba(scores)[:, 1]
    # his targets shrink the two classes by 1 / (N + 2), a thousandth here
    assert recalibration.platt(labels, risks)(risks) == pytest.approx(wanted, abs=2e-3)


def test_isotonic_is_scikit_learns() -> None:
    labels, risks = _judged(300, 2)
    other = np.linspace(0, 1, 50)
    wanted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(risks, labels).predict(other)
    assert recalibration.isotonic(labels, risks)(other) == pytest.approx(wanted)


@pytest.mark.parametrize("name", sorted(recalibration.METHODS))
def test_risks_that_were_off_are_right_after_it_on_stays_that_it_never_saw(name: str) -> None:
    learn = recalibration.METHODS[name](*_judged(4000, 3))
    labels, risks = _judged(4000, 4)
    after = learn(risks)
    assert calibration.ece(labels, risks) > 0.1 > 0.03 > calibration.ece(labels, after)
    assert metrics.brier(labels, after) < metrics.brier(labels, risks)
    assert np.abs(metrics.auroc(labels, after) - metrics.auroc(labels, risks)) < 0.005


def test_platt_keeps_the_ranking_and_stays_finite_where_a_threshold_parts_the_outcomes() -> None:
    labels, risks = np.array([0, 0, 0, 1, 1]), np.array([0.1, 0.2, 0.3, 0.7, 0.9])
    after = recalibration.platt(labels, risks)(risks)
    assert (np.diff(after) > 0).all() and 0 < after[0] < after[-1] < 1


def test_one_and_the_same_risk_becomes_the_share_of_the_outcome() -> None:
    labels = np.array([1] * 30 + [0] * 70)
    after = recalibration.platt(labels, np.full(100, 0.9))(np.array([0.9, 0.1]))
    assert after == pytest.approx([0.31, 0.31], abs=0.01)


@pytest.mark.parametrize("name", sorted(recalibration.METHODS))
def test_validation_of_one_class_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="all 2 labels are 0"):
        recalibration.METHODS[name]([0, 0], [0.1, 0.2])


def test_few_validation_stays_are_told_and_enough_or_none_are_not() -> None:
    assert [recalibration.few(stays) for stays in (6, 49, 50, None)] == [6, 49, None, None]
