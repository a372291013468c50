"""Several trainings of one arm: the same recipe, another seed. What they reach on average, and how far they differ.

A resample draws trainings with replacement, then patients, and takes the mean measure of those trainings on those
patients. All trainings judged the same patients, so the patients are drawn once for all of them (crossed, not nested),
and arms with equally many trainings take the same ones: differences stay paired in both. With S trainings the part of
the variance that comes from the seeds is too small by (S - 1) / S; with one it is missing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from contracts.errors import DataError
from evaluation import metrics
from evaluation.metrics import MEASURES, Floats, Ints
from evaluation.risks import Judged, judged

BY_SEED = {"arm": pl.String, "reading": pl.String, "seed": pl.Int64, **dict.fromkeys(MEASURES, pl.Float64)}


def measured(labels: Ints, risks: Floats) -> dict[str, float]:
    """Each of `MEASURES` on all stays."""
    return {name: point(labels, risks) for name, point in metrics.ON_ALL_STAYS.items()}


def drawn(trainings: int, resamples: int, seed: int) -> Ints:
    """Which trainings each resample takes, (B, S), values 0 to S - 1."""
    return np.random.default_rng([seed, trainings]).integers(trainings, size=(resamples, trainings))


def over_seeds(values: Floats, seed: int) -> Floats:
    """The mean measure of the trainings that each resample takes, (B,).

    Args:
        values: measure of S trainings on each of B resamples of patients, (S, B).
        seed: of the draw.
    """
    taken = drawn(values.shape[0], values.shape[1], seed)
    return np.asarray(values.T[np.arange(values.shape[1])[:, None], taken].mean(axis=1))


def spread(values: Sequence[float]) -> float | None:
    """Standard deviation over trainings (ddof 1); None for one."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def all_judged(verdicts: Sequence[pl.DataFrame]) -> list[Judged]:
    """The risks of each training, the study's own first.

    Raises:
        ContractError: verdicts break their contract.
        DataError: a further training judged other stays or labels, or is of an arm that the first does not have.
    """
    first, *others = [judged(frame) for frame in verdicts]
    for number, other in enumerate(others, 2):
        if other.stay_ids != first.stay_ids or (other.labels != first.labels).any():
            raise DataError(f"training {number} judged {len(other.stay_ids)} stays, the first {len(first.stay_ids)}, "
                            "and they are not the same with the same labels", "all trainings judge the same test stays",
                            "judge the arms again on one list of stays")
        unknown = {arm for arm, _ in other.risks} - {arm for arm, _ in first.risks}
        if unknown:
            raise DataError(f"training {number} has {', '.join(sorted(unknown))}", "arms of the first training",
                            "judge the first training of these arms too")
    return [first, *others]


def by_seed(verdicts: Sequence[pl.DataFrame], seeds: Sequence[int]) -> pl.DataFrame:
    """What each training reaches on all test stays, columns `BY_SEED`; rows of arms that were trained once have its
    seed too.

    Args:
        verdicts: of each training, the study's own first.
        seeds: of each training.

    Raises: as `all_judged`.
    """
    rows = [{"arm": arm, "reading": reading, "seed": seed, **measured(one.labels, risks)}
            for seed, one in zip(seeds, all_judged(verdicts), strict=True)
            for (arm, reading), risks in one.risks.items()]
    order = {key: place for place, key in enumerate(dict.fromkeys((row["arm"], row["reading"]) for row in rows))}
    return pl.DataFrame(sorted(rows, key=lambda row: order[row["arm"], row["reading"]]), schema=BY_SEED)
