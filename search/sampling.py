"""Random sampling: N trajectories drawn independently from the model, for comparison with the tree search.

In: a root state, somebody who proposes actions and answers them, and the reward of a complete state. Out: N complete,
rewarded states, and under the root one branch for each.

Each trajectory is sampled action by action and answer by answer, as the search samples its candidates, but nothing
chooses among them: one candidate a step, no local reward, no tree that remembers. Trajectories are independent and
identically distributed given the root; two may be the same. What the two methods have in common is the number N of
finished rollouts; a sampled one takes fewer requests, since nothing is proposed that is not taken.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

from search.mcts import Proposes, Rewards, Rollout, Settings, together
from search.tree import Node, backup

S = TypeVar("S")
A = TypeVar("A")


class Sampled(Proposes[S, A], Rewards[S], Protocol[S, A]):
    """All that sampling needs to know of what is sampled: no `usefulness`."""


async def sample(problem: Sampled[S, A], root: Node[S], settings: Settings) -> list[Rollout[S]]:
    """Draws `settings.rollouts` trajectories of at most `settings.depth` actions, all at once.

    Args:
        settings: `candidates` and `exploration` have no meaning here.

    Raises:
        RuntimeError: the problem breaks its protocol: no action, or none that ends at the last depth.
    """
    lines = await together(_line(problem, root.state, settings.depth, number) for number in range(settings.rollouts))
    return [_grafted(problem, root, line, settings.seed) for line in lines]


async def _line(problem: Sampled[S, A], state: S, depth: int, number: int) -> list[S]:
    """The states of one trajectory, the root's left out; its number is in every place, so that seeds differ."""
    states: list[S] = []
    place: tuple[int, ...] = (number,)
    for step in range(1, depth + 1):
        actions = await problem.actions(state, place, 1, step == depth)
        if not actions:
            break
        place = (*place, 0)
        state = await problem.answer(state, actions[0], place)
        states.append(state)
        if problem.terminal(state):
            return states
    raise RuntimeError(f"problem gave no end within {depth} actions: there must be one at each state, and the last "
                       "must end it")


def _grafted(problem: Sampled[S, A], root: Node[S], states: list[S], seed: int) -> Rollout[S]:
    """Puts a trajectory under the root, as a branch of its own, and backs its reward up along it."""
    number, path = len(root.children), [root]
    for state in states:
        path.append(path[-1].attach(state, 0.0, problem.terminal(state), seed))
    end = path[-1]
    end.reward = problem.reward(end.state)
    backup(path, end.reward)
    return Rollout(number, end.path, end.state, end.reward, revisit=False)
