"""One stay as the language model meets it: evidence in words, what it shows, and what rewards need to know.

`patients` frame: one row a stay. The evidence holds no identifier; `stay_id` is never rendered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from contracts.frames import Columns

PATIENTS = Columns("patients", {
    "stay_id": pl.String, "split": pl.String, "label": pl.Int8, "evidence": pl.String, "shown": pl.List(pl.String),
    "expert_features": pl.List(pl.String)}, ("stay_id",))


@dataclass(frozen=True)
class Patient:
    """One row of `patients`.

    Attributes:
        evidence: the static data and the features over visits, as text.
        shown: canonical names of the tokens that the evidence shows ("Age & Sex" included).
        expert_features: C_exp, at most K tokens among `shown` that the expert attends to most, largest first.
    """

    stay_id: str
    split: str
    label: int
    evidence: str
    shown: tuple[str, ...]
    expert_features: tuple[str, ...]


def patients_of(frame: pl.DataFrame) -> list[Patient]:
    """The rows of a `patients` frame, in its order."""
    rows = PATIENTS.check(frame).select(list(PATIENTS.dtypes)).iter_rows(named=True)
    return [Patient(**{**row, "shown": tuple(row["shown"]), "expert_features": tuple(row["expert_features"])})
            for row in rows]


def stratified(patients: Sequence[Patient], count: int | str, seed: int) -> list[Patient]:
    """A stratified sample by label, in a fixed pseudo-random order that depends on nothing but seed and stay.

    Samples nest: a smaller one is part of a larger one with the same seed.

    Args:
        count: how many, or "all" (also where fewer are there).
    """
    def order(patient: Patient) -> str:
        return hashlib.sha256(f"{seed}|{patient.stay_id}".encode()).hexdigest()

    groups = {label: sorted((one for one in patients if one.label == label), key=order)
              for label in sorted({one.label for one in patients})}
    # Place each group's i-th of n at (i + 1/2) / n: any prefix then holds the labels in their shares.
    placed = [((index + 0.5) / len(group), label, one) for label, group in groups.items()
              for index, one in enumerate(group)]
    ordered = [one for *_, one in sorted(placed, key=lambda entry: entry[:2])]
    return ordered if count == "all" else ordered[:int(count)]
