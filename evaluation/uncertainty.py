"""Is a trajectory unsure in its clinical words where its prediction is unsure? Entropy against uncertainty, by rank.

In go the rollouts of stage 2 (mean entropy over clinical tokens and stated risk, as training saw them) and test answers
(lower bounds of the entropy, see `token_entropy`); out come correlations with intervals, and the means of the
uncertainty over equally large parts of the entropy for a picture. The uncertainty of a prediction p is measured as

- risk entropy: - p ln p - (1 - p) ln(1 - p) of the stated risk, or of the risk read from the tokens;
- spread: standard deviation of the stated risks of one prompt's group of rollouts, against their mean entropy;
- error: |outcome - p|, for test answers.

Rollouts are ranked within the optimiser step that sampled them, since both sides drift as training goes on; resamples
are of stays, all of whose rollouts come along.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from evaluation.metrics import Floats
from evaluation.rank_correlation import correlation
from evaluation.risks import arms_of
from evaluation.token_entropy import mention_entropy
from prompts.mentions import MentionFinder

ROLLOUTS, GROUPS, ANSWERS = "stage-2 rollouts", "stage-2 groups", "test answers"
SCHEMA: dict[str, Any] = {"source": pl.String, "arm": pl.String, "uncertainty": pl.String, "entropy": pl.String,
                          "n": pl.Int64, "stays": pl.Int64, "rho": pl.Float64, "low": pl.Float64, "high": pl.Float64}
CURVE: dict[str, Any] = {"source": pl.String, "arm": pl.String, "uncertainty": pl.String, "part": pl.Int64,
                         "n": pl.Int64, "entropy": pl.Float64, "value": pl.Float64}
WHOLE, BOUND = "whole vocabulary", "lower bound"
PARTS = 5
_FEWEST = 10  # stays of which a correlation is told
# One row a thing whose entropy and uncertainties are known.
Points = pl.DataFrame


def of_rollouts(rollouts: pl.DataFrame) -> dict[str, Points]:
    """Rollouts and groups of stage 2 that were trained on, with `entropy`, the uncertainty, `stay_id` and `step`.

    Args:
        rollouts: rows of `rollouts.parquet`.
    """
    kept = rollouts.filter(pl.col("kept") & pl.col("mention_entropy").is_not_null()
                           & pl.col("probability").is_not_null()).rename({"mention_entropy": "entropy"})
    single = kept.select("stay_id", "step", "entropy", _risk_entropy("probability").alias("stated risk entropy"))
    groups = kept.group_by("step", "stay_id", maintain_order=True).agg(
        pl.col("entropy").mean(), pl.col("probability").std(ddof=0).alias("spread of stated risks"),
        pl.len().alias("size")).filter(pl.col("size") > 1).drop("size")
    return {ROLLOUTS: single, GROUPS: groups}


def of_answers(verdicts: pl.DataFrame, mentions: MentionFinder) -> dict[str, Points]:
    """Readable answers of each arm with language that mention a feature; an arm without any is left out."""
    found = {}
    for arm, part in arms_of(verdicts).items():
        read = part.filter(pl.col("parsed") & pl.col("token_entropies").is_not_null())
        entropies = [mention_entropy(tokens, mentions.find(text))
                     for text, tokens in read.select("text", "token_entropies").iter_rows()]
        points = read.select(
            "stay_id", pl.lit(0).alias("step"), pl.Series("entropy", entropies, dtype=pl.Float64),
            _risk_entropy("probability").alias("stated risk entropy"),
            _risk_entropy("token_probability").alias("token risk entropy"),
            (pl.col("label") - pl.col("token_probability")).abs().alias("error")).drop_nulls("entropy")
        if points.height:
            found[arm] = points
    return found


def _risk_entropy(column: str) -> pl.Expr:
    """Entropy of a yes-or-no prediction [nat], at most ln 2."""
    return sum((pl.when(share > 0).then(-share * share.log()).otherwise(0.0)
                for share in (pl.col(column), 1 - pl.col(column))), start=pl.lit(0.0))


def correlations(rollouts: Mapping[str, Points], answers: Mapping[str, Points], resamples: int, seed: int
                 ) -> pl.DataFrame:
    """Rank correlations with 95 % intervals, columns `SCHEMA`; none of fewer than ten stays."""
    rows = [{"source": source, "arm": arm, "entropy": WHOLE if source != ANSWERS else BOUND, "uncertainty": name,
             "n": points.height, "stays": points["stay_id"].n_unique(), **_correlated(points, name, resamples, seed)}
            for source, arm, points in _sources(rollouts, answers) if points["stay_id"].n_unique() >= _FEWEST
            for name in _uncertainties(points)]
    return pl.DataFrame(rows, schema=SCHEMA)


def curves(rollouts: Mapping[str, Points], answers: Mapping[str, Points], smallest: int) -> pl.DataFrame:
    """Mean uncertainty over fifths of the entropy, columns `CURVE`.

    Fifths are equally large, so that none can be worked out from the others; there are none where they would hold fewer
    than `smallest` stays.
    """
    rows = [row for source, arm, points in _sources(rollouts, answers) for name in _uncertainties(points)
            for row in _parts(source, arm, name, points, smallest)]
    return pl.DataFrame(rows, schema=CURVE)


def _sources(rollouts: Mapping[str, Points], answers: Mapping[str, Points]) -> list[tuple[str, str | None, Points]]:
    return [*((source, None, points) for source, points in rollouts.items()),
            *((ANSWERS, arm, points) for arm, points in answers.items())]


def _uncertainties(points: Points) -> list[str]:
    return [name for name in points.columns if name not in ("stay_id", "step", "entropy")]


def _correlated(points: Points, name: str, resamples: int, seed: int) -> dict[str, float | None]:
    found = correlation(points["entropy"].to_numpy(), points[name].to_numpy(),
                        clusters(points["stay_id"].to_list(), resamples, seed), points["step"].to_numpy())
    return {"rho": found.rho, "low": found.low, "high": found.high}


def clusters(names: Sequence[str], resamples: int, seed: int) -> NDArray[np.integer]:
    """How often each thing was drawn where whole clusters are drawn with replacement, (B, n)."""
    member = np.unique(np.asarray(names), return_inverse=True)[1]
    size, draw = int(member.max()) + 1, np.random.default_rng(seed)
    return np.stack([np.bincount(draw.integers(size, size=size), minlength=size)[member] for _ in range(resamples)])


def _parts(source: str, arm: str | None, name: str, points: Points, smallest: int) -> list[dict[str, Any]]:
    ordered = points.sort("entropy", "stay_id", maintain_order=True)
    parts = [ordered[rows.tolist()] for rows in np.array_split(np.arange(ordered.height), PARTS)]
    if min(part["stay_id"].n_unique() for part in parts) < smallest:
        return []
    return [{"source": source, "arm": arm, "uncertainty": name, "part": number, "n": part.height,
             "entropy": _mean(part["entropy"].to_numpy()), "value": _mean(part[name].to_numpy())}
            for number, part in enumerate(parts, 1)]


def _mean(values: Floats) -> float:
    return float(values.mean())
