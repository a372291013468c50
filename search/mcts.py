"""Expert-guided Monte Carlo tree search: Algorithm 1 of EAG-RL (arXiv 2508.13579), for any problem.

In: a root state, somebody who proposes actions and answers them, somebody who assesses an action without its answer,
and the reward of a complete state. Out: the tree and one complete, rewarded state per rollout.

This file knows no hospital and no server. The d actions of an expansion are sampled together; then their d answers and
their d assessments run together. Results depend on the seed and on what the problem answers, never on the order in
which the answers come in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from search.tree import Node, backup, descend, most_useful

S = TypeVar("S")
A = TypeVar("A")
SIn = TypeVar("SIn", contravariant=True)
AIn = TypeVar("AIn", contravariant=True)
Place = tuple[int, ...]


class Proposes(Protocol[S, A]):
    """Candidate actions for a state, and their answers."""

    async def actions(self, state: S, place: Place, count: int, last: bool) -> Sequence[A]:
        """`count` actions that could follow `state`, the node at `place`; with `last` each must end the trajectory."""
        ...

    async def answer(self, state: S, action: A, place: Place) -> S:
        """The state after `action` and its answer, which becomes the node at `place`."""
        ...

    def terminal(self, state: S) -> bool:
        """Whether the trajectory is complete."""
        ...


class Assesses(Protocol[SIn, AIn]):
    """The local reward r."""

    async def usefulness(self, state: SIn, action: AIn, place: Place) -> float:
        """How much `action`, still unanswered, would bring in `state`; larger is better."""
        ...


class Rewards(Protocol[SIn]):
    """The terminal reward R."""

    def reward(self, state: SIn) -> float:
        """R of a complete trajectory."""
        ...


class Problem(Proposes[S, A], Assesses[S, A], Rewards[S], Protocol[S, A]):
    """All that the search needs to know of what is searched."""


@dataclass(frozen=True)
class Settings:
    """N rollouts, depth T, d candidates, lambda_1, and the seed that decides ties."""

    rollouts: int = 8
    depth: int = 7
    candidates: int = 3
    exploration: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Rollout(Generic[S]):
    """One rollout: its number from 0, the node and state it ended in, R, and whether that end was known before."""

    number: int
    place: Place
    state: S
    reward: float
    revisit: bool


async def search(problem: Problem[S, A], root: Node[S], settings: Settings) -> list[Rollout[S]]:
    """Grows the tree under `root` by N rollouts.

    Each rollout ends in a complete trajectory. Where all ends below are known already, selection leads to one of them
    again: nothing is generated, and its reward is backed up once more.
    """
    return [await _rollout(problem, root, settings, number) for number in range(settings.rollouts)]


async def _rollout(problem: Problem[S, A], root: Node[S], settings: Settings, number: int) -> Rollout[S]:
    path = descend(root, settings.exploration)
    while not path[-1].terminal:
        path.append(most_useful(await _expand(problem, path[-1], settings)))
    end = path[-1]
    revisit = end.reward is not None
    if end.reward is None:
        end.reward = problem.reward(end.state)
    backup(path, end.reward)
    return Rollout(number, end.path, end.state, end.reward, revisit)


async def _expand(problem: Problem[S, A], node: Node[S], settings: Settings) -> list[Node[S]]:
    """Attaches d answered and assessed children. A node expanded before a failure keeps its children."""
    if node.children:
        return node.children
    last = node.depth + 1 >= settings.depth
    actions = await problem.actions(node.state, node.path, settings.candidates, last)
    places = [(*node.path, index) for index in range(len(actions))]
    done = await together([
        *(problem.answer(node.state, action, place) for action, place in zip(actions, places, strict=True)),
        *(problem.usefulness(node.state, action, place) for action, place in zip(actions, places, strict=True))])
    states, priors = done[:len(actions)], done[len(actions):]
    for state, prior in zip(states, priors, strict=True):
        node.attach(state, prior, problem.terminal(state), settings.seed)
    _check_children(node, last)
    return node.children


def _check_children(node: Node[S], last: bool) -> None:
    """Guards the loop of `_rollout`: without an action, or beyond depth T, it would never end.

    Raises:
        RuntimeError: the problem breaks its protocol.
    """
    if not node.children or (last and not all(child.terminal for child in node.children)):
        raise RuntimeError(f"problem gave {len(node.children)} children at depth {node.depth}, last={last}: there must "
                           "be one at least, and all must be terminal at the last depth")


async def together(awaitables: Iterable[Awaitable[Any]]) -> list[Any]:
    """Awaits all at once, results in order. The first failure cancels the others and is raised once they have ended."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
