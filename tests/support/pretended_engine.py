"""A rollout engine that answers at once, so that a test of training spends no time on sampling."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from models.policy.chat import ChatTokenizer
from models.policy.rollouts import Completion, Request
from prompts.grammar import render_final, render_step

PROBABILITIES = (0.08, 0.21, 0.37, 0.55, 0.72, 0.94)


class Killed(Exception):
    """Stands for the end of the process."""


class PretendedEngine:
    """Answers in the grammar, with a probability and a length drawn with the request's seed.

    Args:
        longest: tokens after which an answer is cut off, without its end.
        flat: stays whose answers are always the same. die_at: the call that raises Killed; 0: none.
    """

    def __init__(self, tokenizer: ChatTokenizer, longest: int, flat: Collection[str] = (), die_at: int = 0) -> None:
        self._tokenizer, self._longest, self.flat, self._die_at = tokenizer, longest, frozenset(flat), die_at
        self.asked: list[list[str]] = []

    def __call__(self, model: Any, adapter: Path, requests: Sequence[Request]) -> list[Completion]:  # noqa: ARG002
        self.asked.append([request.task.stay_id for request in requests])
        if len(self.asked) == self._die_at:
            raise Killed
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Completion:
        dice = random.Random(0 if request.task.stay_id in self.flat else request.seed)
        count = dice.choice((0, 0, 1, 2))
        steps = [render_step(number, "Is glucose high?", "Yes.") for number in range(1, count + 1)]
        text = "".join(steps) + render_final("Will the patient die?", ("glucose",), dice.choice(PROBABILITIES))
        return Completion((*self._tokenizer.encode(text), self._tokenizer.eos_id)[:self._longest])

    def close(self) -> None:
        """Holds nothing."""
