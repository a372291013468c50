import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from contracts.errors import DataError
from evaluation import statistics
from evaluation.power import smallest_difference


def _two_arms(draw: np.random.Generator, size: int, better: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels and the risks of two arms that look at the same patients, the second sharper by `better`."""
    labels = np.r_[0, 1, draw.integers(0, 2, size - 2)]
    shared = draw.normal(size=size)
    one, two = (1 / (1 + np.exp(-(skill * labels + shared + draw.normal(size=size)))) for skill in (1.2, 1.2 + better))
    return labels, one, two


def _delong(labels: np.ndarray, one: np.ndarray, two: np.ndarray) -> float:
    """Standard deviation of the paired difference in AUROC (DeLong, DeLong and Clarke-Pearson 1988)."""
    parts = []
    for risks in (one, two):
        wins = (risks[labels == 1][:, None] > risks[labels == 0]) + 0.5 * (
            risks[labels == 1][:, None] == risks[labels == 0])
        parts.append((wins.mean(axis=1), wins.mean(axis=0)))
    across_ill, across_well = (parts[1][side] - parts[0][side] for side in (0, 1))
    return float(np.sqrt(across_ill.var(ddof=1) / across_ill.size + across_well.var(ddof=1) / across_well.size))


def _gaps(labels: np.ndarray, one: np.ndarray, two: np.ndarray, count: int = 1000, seed: int = 0) -> np.ndarray:
    drawn = statistics.resample(labels, count, seed)
    return statistics.measure("auroc", labels, two, drawn) - statistics.measure("auroc", labels, one, drawn)


@pytest.mark.parametrize("seed", range(3))
def test_the_spread_of_the_resamples_is_that_of_delong(seed: int) -> None:
    labels, one, two = _two_arms(np.random.default_rng(seed), 300, 0.5)
    assert smallest_difference(_gaps(labels, one, two)) == pytest.approx(2.8016 * _delong(labels, one, two), rel=0.08)


def test_a_difference_of_that_size_is_found_in_about_four_of_five_studies() -> None:
    labels, one, two = _two_arms(np.random.default_rng(99), 40_000, 0.55)
    truth = roc_auc_score(labels, two) - roc_auc_score(labels, one)
    shown, found = [], 0
    for seed in range(120):
        labels, one, two = _two_arms(np.random.default_rng(seed), 220, 0.55)
        gaps = _gaps(labels, one, two, 200, seed)
        shown.append(smallest_difference(gaps))
        found += statistics.interval(gaps)[0] > 0
    # the true difference is set to nearly what such a study shows; then the share found is nearly its power
    assert truth == pytest.approx(np.mean(shown), rel=0.15)
    assert 0.66 < found / 120 < 0.92


def test_four_times_as_many_stays_show_half_the_difference() -> None:
    small, large = (smallest_difference(_gaps(*_two_arms(np.random.default_rng(1), size, 0.4)))
                    for size in (300, 1200))
    assert small / large == pytest.approx(2.0, rel=0.2)


def test_one_resample_has_no_spread() -> None:
    with pytest.raises(DataError, match="1 resamples"):
        smallest_difference(np.array([0.1]))
