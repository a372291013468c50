"""Frames that travel between rooms: one `Columns` contract each, checked where a room hands a frame over.

A frame is named by what one row is. Identifiers (`stay_id`, `patient_id`) are opaque text and never reach a prompt or a
model.

- `events`: one measurement: stay_id, time, feature, value.
- `stays`: one hospital stay: stay_id, patient_id, age [years; null = unknown], sex ("female", "male" or "unknown"),
  admitted_at, discharged_at, label, split.
- `visits`: one calendar day of one stay (at most 7 newest and one leading summary): stay_id, visit (0-based), day
  (elapsed days since the first visit of the stay), is_summary, then one Float64 column for each feature of the
  catalogue, in catalogue order. Null = not measured.
- `first`: `visits` of which each stay has one row, its first calendar day: visit 0, day 0, never a summary.
- `targets`: one further outcome of one stay: stay_id, name ("remaining_days", "phenotype: Shock"), value; known only
  after the stay, so it is never a feature.
- `readings`: one token of one stay as the expert sees it: stay_id, risk, feature (or "Age & Sex"), attention (sums to 1
  within a stay, or is 0 throughout where nothing moves its risk), rank (1 = largest).
- `trajectories`: one harvested line of reasoning: see TRAJECTORIES.
- `verdicts`: one arm's answer for one stay: see VERDICTS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from contracts.errors import ContractError

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Columns:
    """The contract of a frame: its name, columns with dtypes, which may be null, and the key that is unique."""

    name: str
    dtypes: Mapping[str, pl.DataType | type[pl.DataType]]
    key: tuple[str, ...]
    nullable: frozenset[str] = frozenset()

    def empty(self) -> pl.DataFrame:
        """A frame of no row that keeps the contract."""
        return pl.DataFrame(schema=dict(self.dtypes))

    def check(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Returns the frame unchanged if it keeps the contract.

        Raises:
            ContractError: a column is missing or of another dtype, a value is null, or a key repeats.
        """
        for column, dtype in self.dtypes.items():
            if column not in frame.columns:
                raise ContractError(f"{self.name} has no column {column!r} (has {frame.columns[:12]})",
                                    f"{self.name} needs {list(self.dtypes)}", "recompute the stage that wrote it")
            if frame.schema[column] != dtype:
                raise ContractError(f"{self.name}.{column} is {frame.schema[column]}", f"it must be {dtype}",
                                    "recompute the stage that wrote it")
            if column not in self.nullable and frame[column].null_count():
                raise ContractError(f"{self.name}.{column} holds {frame[column].null_count()} nulls",
                                    "it must not hold any", "look at the source rows of this column")
        repeated = frame.height - frame.select(self.key).unique().height
        if repeated:
            raise ContractError(f"{self.name} repeats {repeated} keys {list(self.key)}", "each key stands once",
                                "look for duplicate stays or rows in the source")
        return frame


EVENTS = Columns("events", {"stay_id": pl.String, "time": pl.Datetime("us"), "feature": pl.String, "value": pl.Float64},
                 ("stay_id", "time", "feature", "value"))
STAYS = Columns("stays", {"stay_id": pl.String, "patient_id": pl.String, "age": pl.Float64, "sex": pl.String,
                          "admitted_at": pl.Datetime("us"), "discharged_at": pl.Datetime("us"), "label": pl.Int8,
                          "split": pl.String}, ("stay_id",), frozenset({"age"}))
VISITS = Columns("visits", {"stay_id": pl.String, "visit": pl.Int32, "day": pl.Float64, "is_summary": pl.Boolean},
                 ("stay_id", "visit"))
TARGETS = Columns("targets", {"stay_id": pl.String, "name": pl.String, "value": pl.Float64}, ("stay_id", "name"))
READINGS = Columns("readings", {"stay_id": pl.String, "risk": pl.Float64, "feature": pl.String,
                                "attention": pl.Float64, "rank": pl.Int32}, ("stay_id", "feature"))
TRAJECTORIES = Columns("trajectories", {
    "stay_id": pl.String, "rank": pl.Int32, "text": pl.String, "reward": pl.Float64, "outcome_reward": pl.Float64,
    "attention_reward": pl.Float64, "probability": pl.Float64, "features": pl.List(pl.String), "depth": pl.Int32,
    "rollout": pl.Int32}, ("stay_id", "rank"))
VERDICTS = Columns("verdicts", {
    "arm": pl.String, "stay_id": pl.String, "label": pl.Int8, "text": pl.String, "parsed": pl.Boolean,
    "probability": pl.Float64, "token_probability": pl.Float64, "features": pl.List(pl.String),
    "prompt_tokens": pl.Int32, "completion_tokens": pl.Int32}, ("arm", "stay_id"))


def feature_columns(visits: pl.DataFrame) -> list[str]:
    """The feature columns of `visits`, in catalogue order: all that are not of the fixed contract."""
    return [column for column in visits.columns if column not in VISITS.dtypes]


def check_visits(visits: pl.DataFrame, features: Sequence[str]) -> pl.DataFrame:
    """Checks the fixed part of `visits` and that its feature columns are `features`, in order, Float64.

    Raises:
        ContractError: a column is missing, unknown, out of order or of another dtype.
    """
    VISITS.check(visits)
    found = feature_columns(visits)
    if found != list(features):
        odd = sorted(set(found) ^ set(features)) or "their order"
        raise ContractError(f"visits has other feature columns: {odd}", "they are those of the catalogue, in its order",
                            "recompute the cohort")
    wrong = [column for column in found if visits.schema[column] != pl.Float64]
    if wrong:
        raise ContractError(f"visits.{wrong[0]} is {visits.schema[wrong[0]]}", "features are Float64",
                            "recompute the cohort")
    return visits


def check_first(first: pl.DataFrame, features: Sequence[str]) -> pl.DataFrame:
    """Checks `first` as `check_visits` does, and that its rows are first days.

    Raises:
        ContractError: as `check_visits`, or a row is a later day or a summary, which tells what was not yet known.
    """
    check_visits(first, features)
    later = first.filter((pl.col("visit") != 0) | (pl.col("day") != 0.0) | pl.col("is_summary")).height
    if later:
        raise ContractError(f"{later} of {first.height} rows of first are later days or summaries",
                            "first holds each stay's first day alone: visit 0, day 0", "recompute the cohort")
    return first


def top_features(readings: pl.DataFrame, count: int, shown: Mapping[str, Sequence[str]] | None = None
                 ) -> dict[str, list[str]]:
    """Expert features C_exp of every stay: the `count` tokens with the largest attention (EAG-RL, section 3).

    A token without attention, such as a feature that was never measured, is none of them.

    Args:
        readings: contract READINGS.
        count: K of the paper, 5.
        shown: stay_id to the tokens that the prompt of this stay shows; others are passed over, since a policy
            cannot name what it cannot see. None: all count.

    Returns:
        stay_id to at most `count` names, largest attention first; every stay of the readings is there.
    """
    ordered = readings.sort("stay_id", "rank").select("stay_id", "feature", "attention")
    chosen: dict[str, list[str]] = {}
    allowed = {stay: set(names) for stay, names in shown.items()} if shown is not None else None
    for stay, feature, attention in ordered.iter_rows():
        names = chosen.setdefault(stay, [])
        if len(names) < count and attention > 0 and (allowed is None or feature in allowed.get(stay, ())):
            names.append(feature)
    return chosen
