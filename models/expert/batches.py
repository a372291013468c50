"""From the cohort folder to tensors: what ConCare reads.

In: the folder of stage 1 (stays.parquet, filled.parquet or first.parquet, scaling.json, meta.json). Out: a `Stays`: one
`Batch` of all stays, and beside it, never inside it, their identifiers and splits.

A value is clipped to the training split's bounds and standardised: z = (min(max(x, low), high) - mean) / sd. What was
never observed so far is 0, the training mean, and masked. Age is treated alike, unmasked; sex is +1 (male), -1 (female)
or 0 (unknown).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from contracts.cohort_files import FILLED, read_frame, read_json
from contracts.errors import ContractError, DataError
from contracts.frames import SPLITS, STAYS, check_visits, feature_columns

AGE = "age"
SEXES = {"male": 1.0, "m": 1.0, "female": -1.0, "f": -1.0}
Scaling = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Batch:
    """Tensors of B stays, padded at the end to T visits, F features.

    Attributes:
        values: (B, T, F) float32, standardised; 0 where masked.
        mask: (B, T, F) bool; True where the feature had been observed by that visit.
        days: (B, T) float32, elapsed days since the first visit.
        steps: (B, T) bool; True for real visits.
        static: (B, 2) float32; age (standardised) and sex.
        labels: (B,) float32; 0 or 1.
    """

    values: Tensor
    mask: Tensor
    days: Tensor
    steps: Tensor
    static: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def last(self) -> Tensor:
        """(B,) int64: the last visit of each stay."""
        return self.steps.sum(dim=1) - 1

    def select(self, rows: Tensor) -> Batch:
        """The stays of `rows` (b,) int64, padded to the longest of them only."""
        longest = int(self.steps[rows].sum(dim=1).max())
        return Batch(self.values[rows, :longest], self.mask[rows, :longest], self.days[rows, :longest],
                     self.steps[rows, :longest], self.static[rows], self.labels[rows])


@dataclass(frozen=True)
class Stays:
    """All stays of a cohort as one batch, with what the model must not see beside it.

    Attributes:
        batch: N stays, ordered by stay_id.
        stay_ids: N identifiers.
        splits: N split names.
        features: F names, in catalogue order.
        catalogue: name of the feature catalogue.
        scaling: feature (and "age") to mean, sd, low, high, of the training split.
    """

    batch: Batch
    stay_ids: tuple[str, ...]
    splits: tuple[str, ...]
    features: tuple[str, ...]
    catalogue: str
    scaling: Scaling

    def rows(self, split: str) -> Tensor:
        """(n,) int64: rows of a split, in order."""
        return torch.tensor([row for row, name in enumerate(self.splits) if name == split], dtype=torch.int64)

    def split(self, split: str) -> Batch:
        """The stays of one split.

        Raises:
            DataError: the split is empty, or its labels are all alike.
        """
        rows = self.rows(split)
        labels = sorted({int(label) for label in self.batch.labels[rows]})
        if len(labels) < 2:
            raise DataError(f"split {split!r} has {len(rows)} stays with labels {labels}",
                            "a split holds stays of both labels", "choose other split shares, or a larger cohort")
        return self.batch.select(rows)


def read_stays(folder: Path, visits: str = FILLED) -> Stays:
    """Reads a cohort folder.

    Args:
        visits: the file that holds the visits; `contracts.cohort_files.FIRST`: each stay as it was on its first day.

    Raises:
        ArtifactError: a file is missing or unreadable.
        ContractError: a frame or the scaling breaks its contract.
    """
    meta, scaling = read_json(folder / "meta.json"), read_json(folder / "scaling.json")
    stays = STAYS.check(read_frame(folder / "stays.parquet")).sort("stay_id")
    filled = read_frame(folder / visits)
    features = tuple(feature_columns(filled))
    check_visits(filled, features)
    batch = tensors(stays, filled, features, scaling)
    return Stays(batch, tuple(stays["stay_id"]), tuple(stays["split"]), features, str(meta.get("catalogue", "")),
                 scaling)


def tensors(stays: pl.DataFrame, filled: pl.DataFrame, features: Sequence[str], scaling: Scaling) -> Batch:
    """The batch of stays (contract STAYS, in this order) and their filled visits (contract VISITS).

    Raises:
        ContractError: a stay has no visit, a visit no stay, a label is not 0 or 1, or a scaling is missing.
    """
    _check(stays, filled, features, scaling)
    order = stays.select("stay_id").with_row_index("row")
    ordered = filled.join(order, on="stay_id", how="left").sort("row", "visit")
    rows = ordered["row"].to_numpy()
    starts = np.searchsorted(rows, np.arange(stays.height))
    position = np.arange(len(rows)) - starts[rows]
    shape = (stays.height, int(position.max()) + 1)
    days, steps = np.zeros(shape, np.float32), np.zeros(shape, bool)
    days[rows, position], steps[rows, position] = ordered["day"].to_numpy(), True
    raw = np.full((*shape, len(features)), np.nan)
    raw[rows, position] = ordered.select(pl.col(list(features)).fill_null(np.nan)).to_numpy()
    mask = ~np.isnan(raw)
    values = np.where(mask, standardised(raw, [scaling[name] for name in features]), 0.0)
    sex = [SEXES.get(str(entry).strip().lower(), 0.0) for entry in stays["sex"]]
    age = standardised(stays["age"].fill_null(np.nan).to_numpy()[:, None], [scaling[AGE]])[:, 0]
    static = np.stack([np.nan_to_num(age, nan=0.0), np.array(sex)], axis=1)
    return Batch(torch.from_numpy(values.astype(np.float32)), torch.from_numpy(mask), torch.from_numpy(days),
                 torch.from_numpy(steps), torch.from_numpy(static.astype(np.float32)),
                 torch.from_numpy(stays["label"].to_numpy().astype(np.float32)))


def standardised(raw: np.ndarray, scaling: Sequence[Mapping[str, float]]) -> np.ndarray:
    """Clipped z-scores of raw values (..., F) in the features' units; NaN stays NaN."""
    low, high, mean, sd = (np.array([entry[key] for entry in scaling]) for key in ("low", "high", "mean", "sd"))
    scores: np.ndarray = (np.clip(raw, low, high) - mean) / sd
    return scores


def _check(stays: pl.DataFrame, filled: pl.DataFrame, features: Sequence[str], scaling: Scaling) -> None:
    known = set(stays["stay_id"])
    visited = set(filled["stay_id"])
    if known != visited:
        raise ContractError(f"{len(known - visited)} stays unvisited, {len(visited - known)} visited ones unknown",
                            "stays and visits hold the same stays, at least one", "recompute the cohort")
    if not set(stays["label"]) <= {0, 1}:
        raise ContractError(f"stays.label holds {sorted(set(stays['label']))}", "labels are 0 or 1",
                            "recompute the cohort")
    if not set(stays["split"]) <= set(SPLITS):
        raise ContractError(f"stays.split holds {sorted(set(stays['split']))}", f"splits are {SPLITS}",
                            "recompute the cohort")
    lacking = [name for name in (*features, AGE) if not {"mean", "sd", "low", "high"} <= set(scaling.get(name, {}))]
    if lacking:
        raise ContractError(f"scaling.json lacks {lacking[:5]}", "mean, sd, low and high of each feature and of age",
                            "recompute the cohort")
    flat = [name for name in (*features, AGE) if not scaling[name]["sd"] > 0]
    if flat:
        raise ContractError(f"scaling.json has sd {scaling[flat[0]]['sd']} for {flat[0]!r}", "sd is positive",
                            "recompute the cohort")
