"""Subgroups of the test stays by sex and age: does an arm serve one group worse than another?

In go the arms' risks and the stays, out comes one row for each group, arm and reading. What fewer patients than the
smallest cell speak of is hidden, however many stays they have, and with it what would give it away, before anything
leaves this module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from contracts.errors import DataError
from evaluation import metrics, statistics
from evaluation.metrics import Floats, Ints
from evaluation.risks import Judged

# Lower bound [years] and name of each age band.
BANDS = ((0, "<50"), (50, "50–64"), (65, "65–79"), (80, "≥80"))
UNKNOWN = "unknown"
MEASURED = ("auroc", "auroc_low", "auroc_high", "brier", "mean_risk", "observed")
SCHEMA: dict[str, Any] = {"variable": pl.String, "level": pl.String, "arm": pl.String, "reading": pl.String,
                          "n": pl.Int64, "positives": pl.Int64, "hidden": pl.Boolean,
                          **dict.fromkeys(MEASURED, pl.Float64)}
# counts (R, C), smallest count shown, cells tied by a sum -> mask of what to hide (R, C)
Hide = Callable[[np.ndarray, int, Sequence[Sequence[tuple[int, int]]]], np.ndarray]


def subgroups(found: Judged, stays: pl.DataFrame, resamples: int, seed: int, smallest: int, hide: Hide) -> pl.DataFrame:
    """Measures every arm in each subgroup.

    Args:
        found: the arms' risks.
        stays: stay_id, patient_id, age [years] and sex of the judged stays at least.
        resamples: of the patients of a subgroup, for the 95 % intervals of its AUROC.
        seed: of the resamples.
        smallest: smallest count of patients, of those with outcome 1 and of those with outcome 0 whose stays are shown.
        hide: which cells to hide (`ehr.small_cells.hidden`).

    Returns:
        Columns `SCHEMA`. Of a hidden row no measure is shown, and no count that must be hidden; a row that is not
        hidden and has no AUROC is of one class, or of one patient.

    Raises:
        DataError: a judged stay is not among the stays.
    """
    judged = _of_judged(found, stays)
    who = judged["patient_id"].to_numpy()
    rows: list[dict[str, Any]] = []
    for variable, levels in (("sex", _sexes(judged["sex"])), ("age", _bands(judged["age"]))):
        names = sorted(set(levels), key=_rank)
        masks = [np.array([level == name for level in levels]) for name in names]
        for name, mask, hidden in zip(names, masks, covered(found.labels, who, masks, smallest, hide), strict=True):
            head = {"variable": variable, "level": name, "hidden": bool(hidden.any()),
                    "n": None if hidden[0] else int(mask.sum()),
                    "positives": None if hidden[1] else int(found.labels[mask].sum())}
            rows += _of_level(head, found, mask, who[mask], resamples, seed)
    return pl.DataFrame(rows, schema=SCHEMA)


def covered(labels: Ints, who: np.ndarray, masks: Sequence[np.ndarray], smallest: int, hide: Hide) -> np.ndarray:
    """What to hide of groups that are the whole test split: patients, those with outcome 1, those with outcome 0.

    Args:
        labels, who: outcome and patient of each stay, (n,).
        masks: stays of each of R groups, (n,) each.
        smallest, hide: as of `subgroups`.

    Returns:
        True = hidden, (R, 3).
    """
    counts = np.array([list(statistics.patient_counts(labels[mask], who[mask]).values()) for mask in masks])
    return hide(counts, smallest, _sums(len(masks)))


def _sums(groups: int) -> list[list[tuple[int, int]]]:
    """A group is its two outcomes, and the groups are the whole test split, whose counts the report tells."""
    return [*([(row, 0), (row, 1), (row, 2)] for row in range(groups)),
            *([(row, column) for row in range(groups)] for column in range(3))]


def _of_judged(found: Judged, stays: pl.DataFrame) -> pl.DataFrame:
    """The judged stays, in the order of the risks."""
    people = pl.DataFrame({"stay_id": found.stay_ids}).join(stays, on="stay_id", how="inner", maintain_order="left")
    if people.height != len(found.stay_ids):
        raise DataError(f"{len(found.stay_ids) - people.height} judged stays are not among {stays.height} stays",
                        "age and sex of every judged stay are known", "judge and report the same cohort")
    return people


def _sexes(values: pl.Series) -> list[str]:
    return [str(value).strip().lower() or UNKNOWN for value in values]


def _bands(ages: pl.Series) -> list[str]:
    known = [float("nan") if age is None else float(age) for age in ages]
    return [UNKNOWN if np.isnan(age) else next(name for edge, name in reversed(BANDS) if age >= edge or not edge)
            for age in known]


def _rank(level: str) -> tuple[int, str]:
    """Age bands from young to old, then other levels by name, what is unknown last."""
    names = [name for _, name in BANDS]
    return (names.index(level) if level in names else len(names) + (level == UNKNOWN), level)


def _of_level(head: Mapping[str, Any], found: Judged, mask: np.ndarray, patients: np.ndarray, resamples: int, seed: int
              ) -> list[dict[str, Any]]:
    labels = found.labels[mask]
    both = 0 < labels.sum() < labels.size and len(set(patients)) > 1
    drawn = statistics.resample(labels, resamples, seed, list(patients)) if both and not head["hidden"] else None
    return [{**head, "arm": arm, "reading": reading,
             **({} if head["hidden"] else _measures(labels, risks[mask], drawn))}
            for (arm, reading), risks in found.risks.items()]


def _measures(labels: Ints, risks: Floats, drawn: statistics.Resamples | None) -> dict[str, float]:
    plain = {"brier": float(np.mean((risks - labels) ** 2)), "mean_risk": float(risks.mean()),
             "observed": float(labels.mean())}
    if drawn is None:
        return plain
    low, high = statistics.interval(statistics.measure("auroc", labels, risks, drawn))
    return {"auroc": metrics.auroc(labels, risks), "auroc_low": low, "auroc_high": high, **plain}
