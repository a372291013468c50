"""Spearman's rank correlation, within strata and free of what groups explain, on every bootstrap resample at once.

Ranks are taken within a stratum and divided by its size, so that strata speak with their stays; then means of the
groups are taken off, and what remains is correlated (Pearson) over all strata together. With one stratum and no groups
this is Spearman's rho. Where groups part the strata by a yes-or-no variable it is the partial rank correlation given
it: to take off group means is to regress on it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluation import statistics
from evaluation.metrics import Floats

_BLOCK = 2_000_000  # cells ranked at once
_MOST_WITHOUT = 0.05  # share of resamples without a correlation from which on there is no interval
_FLAT = 1e-12


@dataclass(frozen=True)
class Correlation:
    """rho with its 95 % percentile interval; None where one side is constant, or an interval cannot be had."""

    rho: float | None
    low: float | None
    high: float | None


def correlation(across: ArrayLike, up: ArrayLike, counts: NDArray[np.integer], strata: ArrayLike | None = None,
                groups: ArrayLike | None = None) -> Correlation:
    """The correlation of two quantities of n things.

    Args:
        across, up: (n,).
        counts: times that each thing was drawn, (B, n).
        strata: within which ranks are taken, (n,); None: one.
        groups: whose means are taken off, (n,), each within one stratum; None: the strata.
    """
    first, second = np.asarray(across, dtype=np.float64), np.asarray(up, dtype=np.float64)
    parts = np.zeros(first.size, dtype=int) if strata is None else _numbered(strata)
    within = parts if groups is None else _numbered(groups)
    whole = _rho(first, second, np.ones((1, first.size)), parts, within)[0]
    if np.isnan(whole):
        return Correlation(None, None, None)
    step = max(1, _BLOCK // first.size)
    values = np.concatenate([_rho(first, second, counts[start:start + step].astype(np.float64), parts, within)
                             for start in range(0, len(counts), step)])
    known = values[~np.isnan(values)]
    if known.size < (1 - _MOST_WITHOUT) * values.size:
        return Correlation(float(whole), None, None)
    return Correlation(float(whole), *statistics.interval(known))


def _numbered(names: ArrayLike) -> NDArray[np.integer]:
    return np.unique(np.asarray(names), return_inverse=True)[1]


def _rho(first: Floats, second: Floats, weights: Floats, strata: NDArray[np.integer], groups: NDArray[np.integer]
         ) -> Floats:
    """(B,), NaN where a side does not vary."""
    left, right = (_without_means(_ranks(values, weights, strata), weights, groups) for values in (first, second))
    both, one, other = ((weights * product).sum(axis=1) for product in (left * right, left ** 2, right ** 2))
    scale = np.sqrt(one * other)
    return np.divide(both, scale, out=np.full_like(both, np.nan), where=np.minimum(one, other) > _FLAT)


def _ranks(values: Floats, weights: Floats, strata: NDArray[np.integer]) -> Floats:
    """Mean ranks within the stratum, over its size, where each value counts `weights` times, (B, n)."""
    found = np.zeros_like(weights)
    for stratum in range(int(strata.max(initial=-1)) + 1):
        rows = np.flatnonzero(strata == stratum)
        order = np.argsort(values[rows], kind="stable")
        drawn = weights[:, rows[order]]
        starts = np.flatnonzero(np.r_[True, np.diff(values[rows[order]]) > 0])
        tied = np.add.reduceat(drawn, starts, axis=1)
        place = np.cumsum(tied, axis=1) - (tied - 1) / 2
        level = np.cumsum(np.isin(np.arange(rows.size), starts)) - 1
        found[:, rows[order]] = place[:, level] / np.maximum(drawn.sum(axis=1, keepdims=True), 1)
    return found


def _without_means(values: Floats, weights: Floats, groups: NDArray[np.integer]) -> Floats:
    """Values less the mean of their group, (B, n)."""
    found = values.copy()
    for group in range(int(groups.max(initial=-1)) + 1):
        rows = groups == group
        drawn = weights[:, rows]
        total = np.maximum(drawn.sum(axis=1, keepdims=True), 1)
        found[:, rows] -= (drawn * values[:, rows]).sum(axis=1, keepdims=True) / total
    return found
