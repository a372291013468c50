"""Dynamic sampling: groups whose rewards teach nothing are replaced by groups of other prompts (DAPO, Yu et al. 2025).

The item is one group: the G completions of one prompt, under GRPO worth a gradient only if their rewards differ. In:
the groups of a rollout batch, other prompts in a written order, and what generates. Out: a batch of the same size, and
the groups that were sampled for nothing, so that they can be counted. Which prompts stand in is a function of seed and
step, so that a job that was killed meets the same ones.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

# Rewards closer than this are equal: TRL holds them in float32, and its advantage divides by their deviation + 1e-4.
SAME_REWARD = 1e-6


@dataclass(frozen=True)
class Completion:
    """What was sampled.

    Attributes:
        ids: token ids, the end token included where there is one.
        risk: the answer's risk by token probability (`prompts.token_risk`); None where it was not asked for, or the
            tokens do not tell it.
    """

    ids: tuple[int, ...]
    risk: float | None = None


@dataclass(frozen=True)
class Group:
    """The completions of one prompt, and the round that sampled them (0: the batch's own prompts)."""

    stay_id: str
    completions: tuple[Completion, ...]
    round: int = 0


@dataclass(frozen=True)
class Filled:
    """A rollout batch after resampling: the groups that train, in the batch's order, and those that were dropped."""

    kept: tuple[Group, ...]
    dropped: tuple[Group, ...] = ()


Generate = Callable[[Sequence[str], int], list[Group]]


class Judge(Protocol):
    """Knows the rewards."""

    def has_signal(self, group: Group) -> bool: ...

    def note(self, filled: Filled) -> None: ...


@dataclass(frozen=True)
class Resampling:
    """When groups are replaced.

    Attributes:
        rounds: extra rounds per rollout batch; 0: none.
        judge: tells which groups have a signal, and is told of every batch.
        affordable: groups beyond the batch's own that may still be sampled in the batch at an optimiser step; None:
            any number.
    """

    rounds: int
    judge: Judge
    affordable: Callable[[int], int | None]


def equal(rewards: Iterable[float]) -> bool:
    """Whether the rewards of a group are all the same, so that every advantage is zero."""
    values = list(rewards)
    return max(values) - min(values) < SAME_REWARD


def replacements(stays: Iterable[str], batch: Collection[str], seed: int, step: int) -> list[str]:
    """The other stays in the order in which they stand in: a shuffle that depends on seed and step alone."""
    others = [stay_id for stay_id in stays if stay_id not in batch]
    return random.Random(f"{seed}|replacements|{step}").sample(others, len(others))


def fill(first: Sequence[Group], others: Sequence[str], generate: Generate, has_signal: Callable[[Group], bool],
         rounds: int, affordable: int | None = None) -> Filled:
    """Replaces groups without a signal by groups of other prompts, each prompt tried once.

    A round samples one group for each place that lacks one; those with a signal fill the places in order, the others
    are dropped. A place that no round could fill keeps the group it had.

    Args:
        first: groups of the batch's own prompts.
        others: stays that may stand in, in their order.
        generate: groups of the given stays, in their order, for a round (1, 2, ...).
        has_signal: whether a group's rewards differ.
        rounds: most extra rounds.
        affordable: most extra groups; None: any number.
    """
    kept, dropped, spare = list(first), [], list(others if affordable is None else others[:max(affordable, 0)])
    empty = [place for place, group in enumerate(kept) if not has_signal(group)] if rounds else []
    for number in range(1, rounds + 1):
        chosen, spare = spare[:len(empty)], spare[len(empty):]
        if not chosen:
            break
        for group in generate(chosen, number):
            if has_signal(group):
                place = empty.pop(0)
                kept[place], group = group, kept[place]
            dropped.append(group)
    return Filled(tuple(kept), tuple(dropped))
