"""Which flow runs before judging: those of the study's own two stages that some arm stands on, and no more."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from configs.schema import Config
from flows.arms import stages_needed
from flows.opening import Artifacts
from flows.train_expert import train_expert
from flows.tune_policy import tune_policy


def before_judging(config: Config, arms: Iterable[str]) -> Callable[..., Artifacts]:
    """The flow that makes what the arms need of the study: its expert, its stage 1 or both stages."""
    return (train_expert, partial(tune_policy, stage_2=False), tune_policy)[stages_needed(config, arms)]
