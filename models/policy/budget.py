"""The rollout budget of a training: every RL arm may sample as many completions as the others, and no more.

In: how many rollouts the batches before an optimiser step have cost, read from what was recorded on disk. Out: what is
left, and an end of training between two rollout batches. Nothing is counted in memory, so that a resumed job agrees
with one that was never killed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from configs.schema import Grpo


@dataclass(frozen=True)
class Budget:
    """How many rollouts may be sampled.

    Args:
        section: its rollout_budget, and the size of a rollout batch.
        spent: rollouts of all batches sampled before an optimiser step.
    """

    section: Grpo
    spent: Callable[[int], int]

    def groups_beyond(self, step: int) -> int | None:
        """Groups that the batch sampled at `step` may have beyond its own prompts; None: any number."""
        if self.section.rollout_budget is None:
            return None
        return max(0, self._left(step) // self.section.generations - self.section.prompts_per_batch)

    def exhausted(self, step: int) -> bool:
        """Whether the whole rollout batch that would be sampled at `step` is more than what is left."""
        return self.section.rollout_budget is not None and self._left(step) < self.section.rollouts_per_batch

    def ending(self, step: int) -> str | None:
        """The line for done.json where the budget ended the training before `policy.grpo.steps`; else None."""
        if step >= self.section.steps or not self.exhausted(step):
            return None
        return (f"policy.grpo.rollout_budget = {self.section.rollout_budget} rollouts: {self.spent(step)} are spent "
                f"after {step} of {self.section.steps} optimiser steps, and the next batch takes "
                f"{self.section.rollouts_per_batch}")

    def _left(self, step: int) -> int:
        return (self.section.rollout_budget or 0) - self.spent(step)


class StopAtBudget(TrainerCallback):
    """Ends training, with a checkpoint, after the last optimiser step of the last rollout batch that can be paid."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl,  # noqa: ARG002
                    **kwargs: Any) -> None:  # noqa: ARG002
        """Called by the trainer after each optimiser step."""
        section = self._budget.section
        if state.global_step % section.steps_per_batch == 0 and self._budget.exhausted(state.global_step):
            control.should_training_stop = control.should_save = True
