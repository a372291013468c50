"""What gradient boosting leans on, stay by stay: readings as an expert's, so that it can guide beside the others.

In goes the cohort folder, out come READINGS of every stay at its last visit. Trees have no attention; in its place
stands the stay's *replacement importance*: how far the log-odds move, on average, if one feature takes the values that
it has in other patients,

    I(i, f) = mean over background stays b of | g(x_i) - g(x_i with feature f of x_b) |,        attention = I / sum I,

one feature at a time, all others as they are in stay i. It is permutation importance (Breiman 2001) of one stay instead
of a test set. It is no Shapley value: what either of two features tells alone is counted for neither. Model and
background come from the training split alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from threadpoolctl import threadpool_limits

from contracts.errors import DataError
from contracts.features import STATIC
from contracts.frames import READINGS
from evaluation.baselines import Fitted, Table, fit_boosting, read_cohort, tabulate
from evaluation.metrics import Floats

BACKGROUND = 32  # training stays whose values stand in
_AT_ONCE = 100_000  # rows judged in one call


def read_boosting(cohort: Path, seed: int) -> tuple[pl.DataFrame, str]:
    """Fits gradient boosting on the training split and reads every stay at its last visit.

    Args:
        cohort: folder with stays.parquet, filled.parquet and scaling.json.
        seed: of the folds, the trees and the choice of background stays.

    Returns:
        READINGS (F + 1 tokens a stay, age and sex as one), and how the model was chosen.

    Raises:
        MissingFileError, ContractError: the folder does not hold the cohort.
        DataError: fewer than two training stays of a class, or trees that never split.
    """
    table = tabulate(*read_cohort(cohort))
    with threadpool_limits(limits=1):
        model, note = fit_boosting(table, seed)
        found = importance(model, table.values, background(table, seed), groups(table))
        risks = model.risks(table.values)
    if not found.any():
        raise DataError(f"gradient boosting moves no risk by any of {len(table.names)} features",
                        "a guide tells features apart", "use more training stays, or leave gradient_boosting out of "
                        "prompts.guides")
    return readings_of(table, risks, found), f"{note}; importances over {BACKGROUND} background stays at most"


def importance(model: Fitted, values: Floats, others: Floats, tokens: list[list[int]]) -> Floats:
    """Replacement importance of each token for each stay (equation in the module's header).

    Args:
        values: raw, NaN = never observed, (n, F + 2).
        others: of the background stays, (B, F + 2).
        tokens: columns of each token; those of one token are replaced together.

    Returns:
        (n, tokens) in log-odds; 0 for a token of which the stay has no value: there is nothing to lean on.
    """
    found = np.zeros((len(values), len(tokens)))
    step = max(1, _AT_ONCE // len(others))
    for start in range(0, len(values), step):
        part = values[start:start + step]
        plain = model.log_odds(part)
        for number, columns in enumerate(tokens):
            changed = np.repeat(part, len(others), axis=0)
            changed[:, columns] = np.tile(others[:, columns], (len(part), 1))
            moved = np.abs(model.log_odds(changed).reshape(len(part), -1) - plain[:, None]).mean(axis=1)
            found[start:start + step, number] = np.where(np.isnan(part[:, columns]).all(axis=1), 0.0, moved)
    return found


def background(table: Table, seed: int) -> Floats:
    """Values of at most `BACKGROUND` training stays, drawn without replacement, (B, F + 2)."""
    values, _ = table.of("train")
    rows = np.random.default_rng(seed).choice(len(values), size=min(BACKGROUND, len(values)), replace=False)
    return values[np.sort(rows)]


def groups(table: Table) -> list[list[int]]:
    """Columns of each token: one a feature, and age and sex together, as the other experts have them."""
    size = len(table.names)
    return [*([column] for column in range(size - 2)), [size - 2, size - 1]]


def readings_of(table: Table, risks: Floats, found: Floats) -> pl.DataFrame:
    """READINGS of risks (n,) and importances (n, F + 1); equal ones rank in catalogue order.

    A stay that nothing moves has no attention on any token, so that no feature is named in its place.
    """
    names, total = [*table.names[:-2], STATIC], found.sum(axis=1, keepdims=True)
    attention = np.divide(found, total, out=np.zeros_like(found), where=total > 0)
    ranks = np.argsort(np.argsort(-attention, axis=1, kind="stable"), axis=1) + 1
    return READINGS.check(pl.DataFrame({
        "stay_id": np.repeat(np.array(table.stay_ids, dtype=object), len(names)).tolist(),
        "risk": np.repeat(risks, len(names)), "feature": names * len(risks), "attention": attention.ravel(),
        "rank": ranks.ravel().astype(np.int32)}))


def effective_tokens(readings: pl.DataFrame) -> float:
    """Mean over stays of exp(entropy of the attention): 1 where one token has all, F + 1 where all are alike.

    Stays without any attention are left out.
    """
    share = pl.col("attention")
    entropy = pl.when(share > 0).then(-share * share.log()).otherwise(0.0).sum().exp()
    moved = readings.filter(share.sum().over("stay_id") > 0)
    return float(np.mean(moved.group_by("stay_id").agg(entropy.alias("tokens"))["tokens"].to_numpy()))
