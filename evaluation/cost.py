"""What each language-model arm costs: seconds and tokens of its training, and of judging one patient.

In go stages with their wall seconds and tokens, and what judging took; out come two frames, one of arms and one of
stages. A stage that several arms need is counted in full for each of them, and named as shared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from evaluation.wording import NONE, Grid

HOUR = 3600.0
PATIENTS = 1000  # that the price is for
ARMS: dict[str, Any] = {
    "arm": pl.String, "training_seconds": pl.Float64, "shared_seconds": pl.Float64, "training_tokens": pl.Float64,
    "stages": pl.Int64, "untimed_stages": pl.Int64, "patients": pl.Int64, "judging_seconds": pl.Float64,
    "seconds_per_patient": pl.Float64, "prompt_tokens_per_answer": pl.Float64, "cached_share": pl.Float64,
    "tokens_per_answer": pl.Float64, "price_per_1000": pl.Float64}
STAGES: dict[str, Any] = {"stage": pl.String, "artifact": pl.String, "seconds": pl.Float64, "tokens": pl.Float64,
                          "arms": pl.String, "shared": pl.Boolean}


@dataclass(frozen=True)
class Stage:
    """A finished stage: its kind, its artifact, wall seconds (None: not known), and tokens that a policy was trained on
    or that were sampled for its training (None: neither)."""

    kind: str
    artifact: str
    seconds: float | None
    tokens: float | None = None


@dataclass(frozen=True)
class Judging:
    """What asking one arm about all test stays took.

    Attributes:
        patients: asked, one answer each.
        seconds: wall time of all lives of the stage, without the start of the server; None: not known.
        prompt_tokens, completion_tokens: sums.
        cached_tokens: of the prompts, those that the server had in its cache; None: it did not tell.
        on_gpu: where the server computed; None: somebody else's server.
    """

    patients: int
    seconds: float | None
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: float | None = None
    on_gpu: bool | None = None


@dataclass(frozen=True)
class ArmCost:
    """An arm, the stages that its adapter comes from (each once; none: the base model answers), and its judging."""

    arm: str
    training: tuple[Stage, ...]
    judging: Judging


@dataclass(frozen=True)
class Prices:
    """Price of an hour of the machine where a GPU, and where a CPU answers; None: not known."""

    gpu_hour: float | None = None
    cpu_hour: float | None = None

    def of(self, on_gpu: bool | None) -> float | None:
        """The price that holds; for a server of unknown kind the only one that is given, else None."""
        if on_gpu is None:
            known = [price for price in (self.gpu_hour, self.cpu_hour) if price is not None]
            return known[0] if len(known) == 1 else None
        return self.gpu_hour if on_gpu else self.cpu_hour


@dataclass(frozen=True)
class Costs:
    """The frames `ARMS` and `STAGES`, and whether a price was given."""

    arms: pl.DataFrame
    stages: pl.DataFrame
    priced: bool


def costs(arms: Sequence[ArmCost], prices: Prices) -> Costs:
    """Both frames, arms in the order given."""
    users = Counter(one.artifact for arm in arms for one in arm.training)
    shared = {artifact for artifact, count in users.items() if count > 1}
    return Costs(pl.DataFrame([_arm(one, shared, prices) for one in arms], schema=ARMS), _stages(arms, shared),
                 prices != Prices())


def arms_grid(found: Costs) -> Grid:
    """One line for each arm; money only where a price is given."""
    heads = ["Arm", "Training [s]", "of it shared [s]", "Training tokens", "Judging [s per patient]",
             "Prompt tokens per answer", "of them cached", "Tokens per answer"]
    rows = [[row["arm"], _seconds(row), f"{row['shared_seconds']:,.0f}" if row["stages"] else NONE,
             f"{row['training_tokens']:,.0f}" if row["stages"] else NONE, _number(row["seconds_per_patient"], ",.3f"),
             f"{row['prompt_tokens_per_answer']:,.0f}", _number(row["cached_share"], ".0%").replace("%", " %"),
             f"{row['tokens_per_answer']:,.1f}", _number(row["price_per_1000"], ",.4g")]
            for row in found.arms.iter_rows(named=True)]
    if found.priced:
        return [*heads, f"Price of judging {PATIENTS:,} patients"], rows
    return heads, [row[:-1] for row in rows]


def stages_grid(found: Costs) -> Grid:
    """One line for each stage that some adapter comes from."""
    rows = [[row["stage"], row["artifact"], _number(row["seconds"], ",.1f"), _number(row["tokens"], ",.0f"),
             row["arms"] + (" (shared)" if row["shared"] else "")] for row in found.stages.iter_rows(named=True)]
    return ["Stage", "Artifact", "Wall time [s]", "Tokens", "Arms"], rows


def _seconds(row: Mapping[str, Any]) -> str:
    """Seconds of training, with a sign where a stage's time is not known."""
    if not row["stages"]:
        return NONE
    return ("> " if row["untimed_stages"] else "") + f"{row['training_seconds']:,.0f}"


def _number(value: float | None, form: str) -> str:
    return NONE if value is None else f"{value:{form}}"


def _arm(found: ArmCost, shared: set[str], prices: Prices) -> dict[str, Any]:
    judging, training = found.judging, found.training
    each = None if judging.seconds is None else judging.seconds / judging.patients
    price = prices.of(judging.on_gpu)
    return {
        "arm": found.arm, "training_seconds": _sum(training),
        "shared_seconds": _sum([one for one in training if one.artifact in shared]),
        "training_tokens": sum(one.tokens for one in training if one.tokens is not None),
        "stages": len(training), "untimed_stages": sum(one.seconds is None for one in training),
        "patients": judging.patients, "judging_seconds": judging.seconds, "seconds_per_patient": each,
        "prompt_tokens_per_answer": judging.prompt_tokens / judging.patients,
        "cached_share": None if judging.cached_tokens is None else judging.cached_tokens / judging.prompt_tokens,
        "tokens_per_answer": judging.completion_tokens / judging.patients,
        "price_per_1000": None if each is None or price is None else PATIENTS * each / HOUR * price}


def _sum(stages: Sequence[Stage]) -> float:
    """Seconds of the stages whose time is known."""
    return sum(one.seconds for one in stages if one.seconds is not None)


def _stages(arms: Sequence[ArmCost], shared: set[str]) -> pl.DataFrame:
    """One row a stage, the ones that come first in an arm's training first."""
    found = {one.artifact: one for arm in arms for one in arm.training}
    rows = [{"stage": one.kind, "artifact": artifact, "seconds": one.seconds, "tokens": one.tokens,
             "arms": ", ".join(arm.arm for arm in arms if one in arm.training), "shared": artifact in shared}
            for artifact, one in found.items()]
    return pl.DataFrame(rows, schema=STAGES)
