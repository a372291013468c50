"""How far two samples, or several, lie apart: AUROC, standardised mean difference, Kolmogorov-Smirnov, and tests.

In: vectors of finite numbers. Out: one number each; NaN where a sample is empty and nothing can be said.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import chdtrc

# Cochran's rule: below this expected count the chi-square distribution no longer describes a table.
SMALLEST_EXPECTED = 5.0


def auroc(labels: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """Area under the ROC curve, and its two-sided p under "no relation" (Mann-Whitney, normal approximation with ties).

    Args:
        labels: (N,), 0 or 1.
        scores: (N,).

    Returns:
        (0.5, 1.0) where one label is absent or all scores are equal.
    """
    positive = labels == 1
    ones, count = int(positive.sum()), labels.size
    zeros = count - ones
    if not ones or not zeros:
        return 0.5, 1.0
    ranks, ties = _ranks(scores)
    area = (float(ranks[positive].sum()) - ones * (ones + 1) / 2) / (ones * zeros)
    variance = ((count + 1) - ties / (count * (count - 1))) / (12 * ones * zeros)
    if variance <= 0.0:
        return 0.5, 1.0
    return area, math.erfc(abs(area - 0.5) / math.sqrt(2 * variance))


def standardised_difference(old: np.ndarray, new: np.ndarray) -> float:
    """Mean of `new` less that of `old`, in units of the root mean square of both standard deviations.

    Returns:
        NaN where a sample is empty, infinity where both are constant and differ.
    """
    if not old.size or not new.size:
        return math.nan
    difference = float(np.mean(new)) - float(np.mean(old))
    spread = math.sqrt((float(np.var(old)) + float(np.var(new))) / 2)
    # A spread that is only rounding is none.
    if spread <= 1e-9 * max(1.0, abs(float(np.mean(old)))):
        return 0.0 if abs(difference) <= 1e-9 * max(1.0, abs(float(np.mean(old)))) else math.copysign(math.inf,
                                                                                                     difference)
    return difference / spread


def kolmogorov_smirnov(old: np.ndarray, new: np.ndarray) -> float:
    """Largest distance between both empirical distribution functions, 0 to 1."""
    if not old.size or not new.size:
        return math.nan
    points = np.concatenate([old, new])
    below_old = np.searchsorted(np.sort(old), points, side="right") / old.size
    below_new = np.searchsorted(np.sort(new), points, side="right") / new.size
    return float(np.abs(below_old - below_new).max())


def kruskal_wallis(groups: Sequence[np.ndarray]) -> float:
    """p of "all groups are drawn from one distribution"; 1 where fewer than two hold `SMALLEST_EXPECTED` values."""
    used = [group for group in groups if group.size >= SMALLEST_EXPECTED]
    if len(used) < 2:
        return 1.0
    count = sum(group.size for group in used)
    ranks, ties = _ranks(np.concatenate(used))
    correction = 1.0 - ties / (count**3 - count)
    if correction <= 0.0:
        return 1.0
    parts = np.split(ranks, np.cumsum([group.size for group in used])[:-1])
    between = sum(part.size * (float(part.mean()) - (count + 1) / 2) ** 2 for part in parts)
    return float(chdtrc(len(used) - 1, 12 * between / (count * (count + 1)) / correction))


def chi_square(hits: Sequence[int], sizes: Sequence[int]) -> float:
    """p of "the share of hits is the same in all groups"; groups too small for the test (Cochran) are left out."""
    found, size = np.asarray(hits, dtype=np.float64), np.asarray(sizes, dtype=np.float64)
    share = found.sum() / max(size.sum(), 1.0)
    used = size * min(share, 1.0 - share) >= SMALLEST_EXPECTED
    if used.sum() < 2:
        return 1.0
    found, size = found[used], size[used]
    share = found.sum() / size.sum()
    if not 0.0 < share < 1.0:
        return 1.0
    return float(chdtrc(size.size - 1, float(((found - size * share) ** 2 / (size * share * (1.0 - share))).sum())))


def _ranks(values: np.ndarray) -> tuple[np.ndarray, float]:
    """Ranks from 1, equal values sharing their mean rank; and the sum of t^3 - t over the ties."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    sizes = counts.astype(np.float64)
    middle = np.cumsum(sizes) - (sizes - 1) / 2
    return middle[place], float((sizes**3 - sizes).sum())
