"""The planted hazard: how ill generated stays are, what that does to their risk, and the truth that is kept of it.

In: ages and a random generator. Out: severities of the processes of `ehr.sources.physiology`, the parts of each stay's
logit, and the table of planted features. Why it is made so is said in `ehr.sources.synthetic`.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from contracts.features import STATIC
from ehr.sources.physiology import AGE_CENTRE, AGE_SCALE, AGE_WEIGHT, PROCESSES

ACTIVE = 2
# Share of the stay's illness in a severity, the rest is the process's own: the processes of a stay worsen together.
SHARED = 0.7
# The truth leaves out what moves the logit by less than this.
SMALLEST_EFFECT = 0.25


def severities(count: int, rng: np.random.Generator) -> np.ndarray:
    """Draws severities (count, P): two of the P processes of each stay, 0 where a process is absent."""
    illness = rng.normal(size=(count, 1))
    own = rng.normal(size=(count, len(PROCESSES)))
    severity = np.maximum(0.0, 1.0 + SHARED * illness + np.sqrt(1 - SHARED**2) * own)
    # The processes of a stay are those with the smallest of P uniform draws.
    order = rng.random((count, len(PROCESSES))).argsort(axis=1).argsort(axis=1)
    return np.where(order < ACTIVE, severity, 0.0)


def score_parts(age: np.ndarray, severity: np.ndarray, tokens: tuple[str, ...]) -> np.ndarray:
    """Parts of the score of each stay, one for each feature: (N, F+1), the static token last."""
    place = {name: index for index, name in enumerate(tokens)}
    parts = np.zeros((age.size, len(tokens)))
    for index, process in enumerate(PROCESSES):
        for name, weight in process.weights.items():
            parts[:, place[name]] += weight * severity[:, index]
    parts[:, place[STATIC]] = AGE_WEIGHT * (age - AGE_CENTRE) / AGE_SCALE
    return parts


def intercept(logit: np.ndarray, mortality: float) -> float:
    """b with mean(sigmoid(logit + b)) = mortality, by bisection."""
    low, high = -np.abs(logit).max() - 20.0, np.abs(logit).max() + 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if sigmoid(logit + middle).mean() < mortality else (low, middle)
    return float((low + high) / 2)


def sigmoid(logit: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-logit)), without overflow."""
    return 1.0 / (1.0 + np.exp(-np.clip(logit, -500, 500)))


def planted_truth(ids: pl.Series, effects: np.ndarray, tokens: tuple[str, ...]) -> pl.DataFrame:
    """stay_id, feature, effect (log-odds), rank (1 = largest absolute effect).

    Effects of SMALLEST_EFFECT and more, and each stay's largest whatever its size; nothing where all effects are zero.

    Args:
        ids: `stay_id` of the N stays.
        effects: (N, F+1), parts of the logit.
        tokens: names of the F+1 columns.
    """
    stay, token = np.divmod(np.arange(effects.size), len(tokens))
    parts = pl.DataFrame({"stay_id": ids.gather(stay), "feature": pl.Series(tokens).gather(token),
                          "effect": effects.ravel(), "token": token})
    size = pl.col("effect").abs()
    ranked = parts.filter(size > 0).sort("stay_id", size, "token", descending=[False, True, False])
    ranked = ranked.with_columns(pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over("stay_id").alias("rank"))
    salient = ranked.filter((size >= SMALLEST_EFFECT) | (pl.col("rank") == 1))
    return salient.select("stay_id", "feature", "effect", "rank")
