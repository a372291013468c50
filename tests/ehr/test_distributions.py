"""Distances and tests agree with SciPy and scikit-learn, ties and empty samples included."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from ehr.distributions import auroc, chi_square, kolmogorov_smirnov, kruskal_wallis, standardised_difference

RNG = np.random.default_rng(5)


@pytest.mark.parametrize("scores", [RNG.normal(size=80), RNG.integers(0, 4, 80).astype(float)], ids=["all", "ties"])
def test_auroc_and_its_p_are_those_of_mann_whitney(scores: np.ndarray) -> None:
    labels = (RNG.random(80) < 0.4).astype(int)
    area, p = auroc(labels, scores)
    assert area == pytest.approx(roc_auc_score(labels, scores))
    test = stats.mannwhitneyu(scores[labels == 1], scores[labels == 0], method="asymptotic", use_continuity=False)
    assert p == pytest.approx(test.pvalue)


def test_auroc_says_nothing_where_nothing_can_be_told() -> None:
    assert auroc(np.zeros(4), np.arange(4.0)) == (0.5, 1.0)
    assert auroc(np.array([0, 1, 0, 1]), np.ones(4)) == (0.5, 1.0)


def test_the_standardised_difference_is_the_mean_difference_over_the_pooled_sd() -> None:
    old, new = np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0])
    assert standardised_difference(old, new) == pytest.approx(2 / math.sqrt((2 / 3 + 8 / 3) / 2))
    assert standardised_difference(new, old) == -standardised_difference(old, new)
    assert standardised_difference(old, old) == 0.0
    assert standardised_difference(np.ones(3), np.ones(2)) == 0.0
    assert standardised_difference(np.ones(3), np.zeros(2)) == -math.inf
    assert math.isnan(standardised_difference(old, np.empty(0)))


def test_kolmogorov_smirnov_is_that_of_scipy() -> None:
    old, new = RNG.normal(size=50), RNG.integers(-2, 3, 70).astype(float)
    assert kolmogorov_smirnov(old, new) == pytest.approx(stats.ks_2samp(old, new).statistic)
    assert kolmogorov_smirnov(old, old) == 0.0
    assert math.isnan(kolmogorov_smirnov(old, np.empty(0)))


def test_kruskal_wallis_is_that_of_scipy_and_leaves_out_tiny_groups() -> None:
    groups = [RNG.integers(0, 6, size).astype(float) for size in (40, 12, 30)]
    assert kruskal_wallis(groups) == pytest.approx(stats.kruskal(*groups).pvalue)
    assert kruskal_wallis([*groups, np.array([99.0])]) == pytest.approx(stats.kruskal(*groups).pvalue)
    assert kruskal_wallis([groups[0]]) == 1.0
    assert kruskal_wallis([np.ones(9), np.ones(9)]) == 1.0


def test_chi_square_is_that_of_scipy_and_leaves_out_tiny_groups() -> None:
    hits, sizes = [30, 8, 25], [100, 20, 40]
    expected = stats.chi2_contingency([hits, [size - hit for hit, size in zip(hits, sizes, strict=True)]])
    assert chi_square(hits, sizes) == pytest.approx(expected.pvalue)
    assert chi_square([30, 25], [100, 40]) == pytest.approx(chi_square([30, 25, 2], [100, 40, 3]))
    assert chi_square([0, 0], [50, 50]) == 1.0 and chi_square([1], [50]) == 1.0
