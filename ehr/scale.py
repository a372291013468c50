"""Statistics for normalisation, of the training split only.

In: filled visits and stays. Out: feature to `Moments`, and the same for "age" [years], as stored in scaling.json.

    z = (min(max(x, low), high) - mean) / sd

`low` and `high` lie `clip_sd` standard deviations from the mean, in the feature's unit, so z stays within +-clip_sd.
A feature that is constant or never observed in the training split tells nothing: low = high = mean, z is always 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import polars as pl

from contracts.errors import ContractError

AGE = "age"


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation (population) of a feature, and where its values are clipped."""

    mean: float
    sd: float
    low: float
    high: float


def fit(filled: pl.DataFrame, stays: pl.DataFrame, features: Sequence[str], clip_sd: float) -> dict[str, Moments]:
    """Statistics over all filled visits of the training split (age: over its stays).

    Args:
        filled: visits after LOCF; nulls are left out.
        stays: contract STAYS.
        clip_sd: distance of the clipping bounds from the mean [sd].

    Returns:
        feature to its moments, in order, and "age" last.
    """
    train = stays.filter(pl.col("split") == "train").sort("stay_id")
    rows = filled.join(train.select("stay_id"), on="stay_id", how="semi").sort("stay_id", "visit")
    scaling = {name: moments(rows[name].drop_nulls().to_numpy(), clip_sd) for name in features}
    return {**scaling, AGE: moments(train["age"].drop_nulls().to_numpy(), clip_sd)}


def moments(values: np.ndarray, clip_sd: float) -> Moments:
    """Moments of a vector (N,) of finite numbers; N may be 0."""
    if not values.size:
        return Moments(mean=0.0, sd=1.0, low=0.0, high=0.0)
    mean = float(np.mean(values))
    sd = float(np.std(values))
    # A spread that is only rounding is none.
    if sd <= 1e-9 * max(1.0, abs(mean)):
        return Moments(mean=mean, sd=1.0, low=mean, high=mean)
    return Moments(mean=mean, sd=sd, low=mean - clip_sd * sd, high=mean + clip_sd * sd)


def as_values(scaling: Mapping[str, Moments]) -> dict[str, dict[str, float]]:
    """JSON-ready: feature to mean, sd, low, high."""
    return {name: asdict(entry) for name, entry in scaling.items()}


def from_values(values: Mapping[str, Mapping[str, float]]) -> dict[str, Moments]:
    """Reads what `as_values` wrote.

    Raises:
        ContractError: an entry lacks a number, or one is not finite.
    """
    scaling = {}
    for name, entry in values.items():
        if set(entry) != set(Moments.__dataclass_fields__) or not all(map(math.isfinite, entry.values())):
            raise ContractError(f"scaling of {name!r} is {dict(entry)}", "mean, sd, low and high, all finite",
                                "recompute the cohort")
        scaling[name] = Moments(**entry)
    return scaling
