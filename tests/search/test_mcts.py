"""Algorithm 1 on small problems without a hospital or a server."""

import asyncio
import random

import pytest

from search.mcts import Settings, search, together
from search.tree import Node, as_json


class Letters:
    """States are words; the children of a word append a letter. Usefulness and rewards are looked up."""

    def __init__(self, useful, rewards, ends=(), pause=None):
        self.useful, self.rewards, self.ends, self.pause = useful, rewards, set(ends), pause
        self.expanded, self.busy, self.most_busy, self.lasts = [], 0, 0, set()

    async def _wait(self):
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        await asyncio.sleep(self.pause() if self.pause else 0)
        self.busy -= 1

    async def actions(self, state, _path, count, last):
        self.expanded.append(state)
        if last:
            self.lasts.add(state)
        await self._wait()
        return ["abcdefgh"[index] for index in range(count)]

    async def answer(self, state, action, _path):
        await self._wait()
        return state + action

    async def usefulness(self, state, action, _path):
        await self._wait()
        return self.useful.get(state + action, 0.0) if isinstance(self.useful, dict) else self.useful(state + action)

    def terminal(self, state):
        return state in self.ends or state[:-1] in self.lasts

    def reward(self, state):
        return self.rewards[state] if isinstance(self.rewards, dict) else self.rewards(state)


def _flat(tree):
    return {tree["name"]: (tree["visits"], round(tree["value"], 6)),
            **{key: value for child in tree["children"] for key, value in _flat(child).items()}}


HAND = [
    # after each rollout: where it ended, and (N, Q) of all nodes visited so far; lambda_1 = 1, d = 2, T = 2
    ("ab", {"": (1, 0.0), "a": (1, 0.0), "ab": (1, 0.0)}),
    ("ba", {"": (2, 0.25), "b": (1, 0.5), "ba": (1, 0.5)}),
    ("bb", {"": (3, -1 / 6), "b": (2, -0.25), "bb": (1, -1.0)}),
    ("aa", {"": (4, 0.125), "a": (2, 0.5), "aa": (1, 1.0)}),
    ("aa", {"": (5, 0.3), "a": (3, 2 / 3), "aa": (2, 1.0)}),
    ("aa", {"": (6, 2.5 / 6), "a": (4, 0.75), "aa": (3, 1.0)}),
]


def _hand_problem():
    return Letters({"a": 0.9, "b": 0.1, "aa": 0.2, "ab": 0.8, "ba": 0.5, "bb": 0.4},
                   {"aa": 1.0, "ab": 0.0, "ba": 0.5, "bb": -1.0})


@pytest.mark.parametrize("count", range(1, 7))
async def test_algorithm_1_gives_the_counts_and_values_computed_by_hand(count):
    root = Node("")
    rollouts = await search(_hand_problem(), root, Settings(count, depth=2, candidates=2))
    expected = {}
    for _, change in HAND[:count]:
        expected.update(change)
    found = {name: value for name, value in _flat(as_json(root, lambda state: {"name": state})).items() if value[0]}
    assert found == {name: (visits, pytest.approx(value, abs=1e-6)) for name, (visits, value) in expected.items()}
    assert [rollout.state for rollout in rollouts] == [end for end, _ in HAND[:count]]


async def test_every_rollout_ends_in_a_rewarded_trajectory_and_known_ends_cost_nothing():
    problem, root = _hand_problem(), Node("")
    rollouts = await search(problem, root, Settings(40, depth=2, candidates=2))
    assert sorted(problem.expanded) == ["", "a", "b"]
    assert [rollout.revisit for rollout in rollouts[:4]] == [False] * 4
    assert all(rollout.revisit for rollout in rollouts[4:])
    assert all(rollout.reward == problem.rewards[rollout.state] for rollout in rollouts)
    assert root.visits == 40
    assert sum(child.visits for child in root.children) == 40


@pytest.mark.parametrize("depth", [1, 2, 4])
async def test_no_trajectory_is_longer_than_the_depth_limit_and_the_last_step_is_forced(depth):
    problem = Letters(len, lambda state: -len(state))
    rollouts = await search(problem, Node(""), Settings(6, depth=depth, candidates=3))
    assert {len(rollout.state) for rollout in rollouts} == {depth}
    assert {len(state) for state in problem.lasts} == {depth - 1}


async def test_an_early_end_ends_the_rollout():
    problem = Letters({"a": 1.0, "aa": 1.0}, lambda _: 0.5, ends={"aa"})
    rollouts = await search(problem, Node(""), Settings(1, depth=5, candidates=2))
    assert rollouts[0].state == "aa"


async def test_simulation_follows_the_local_reward_not_the_order():
    problem = Letters({"b": 5.0, "bc": 2.0, "bcb": 9.0}, lambda _: 0.0)
    rollouts = await search(problem, Node(""), Settings(1, depth=3, candidates=3))
    assert rollouts[0].place == (1, 2, 1)


async def test_answers_and_assessments_of_one_expansion_run_together():
    problem = Letters({}, lambda _: 0.0)
    await search(problem, Node(""), Settings(1, depth=2, candidates=3))
    assert problem.most_busy == 6


async def test_the_tree_does_not_depend_on_the_order_in_which_answers_arrive():
    trees = []
    for shuffle in range(4):
        noise = random.Random(shuffle)
        root = Node("")
        problem = Letters(lambda word: hash_free(word) % 3, lambda word: hash_free(word) % 7,
                          pause=lambda noise=noise: noise.random() / 500)
        await search(problem, root, Settings(6, depth=3, candidates=3, seed=11))
        trees.append(as_json(root, lambda state: {"name": state}))
    assert all(tree == trees[0] for tree in trees[1:])


def hash_free(word):
    return sum(ord(letter) * 31**place for place, letter in enumerate(word))


async def test_a_failed_rollout_leaves_the_counts_as_they_were_and_the_search_can_go_on():
    problem, root = _hand_problem(), Node("")
    await search(problem, root, Settings(1, depth=2, candidates=2))
    before = as_json(root, lambda state: {"name": state})
    reward = problem.reward

    def fail(_):
        raise LookupError("no reward today")

    problem.reward = fail
    with pytest.raises(LookupError):
        await search(problem, root, Settings(1, depth=2, candidates=2))
    assert (root.visits, root.value) == (before["visits"], before["value"])
    problem.reward = reward
    await search(problem, root, Settings(1, depth=2, candidates=2))
    assert problem.expanded == ["", "a", "b"]
    assert root.visits == 2


@pytest.mark.parametrize("broken", ["no actions", "no end"])
async def test_a_problem_that_breaks_its_protocol_is_a_bug_that_stops_the_search(broken):
    problem = _hand_problem()
    if broken == "no end":
        problem.terminal = lambda _: False
    with pytest.raises(RuntimeError, match="children"):
        await search(problem, Node(""), Settings(1, depth=2, candidates=0 if broken == "no actions" else 2))


async def test_one_failure_cancels_the_calls_beside_it():
    ended = []

    async def slow():
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("slow")

    async def fail():
        await asyncio.sleep(0)
        raise LookupError("gone")

    with pytest.raises(LookupError):
        await together([slow(), fail()])
    assert ended == ["slow"]
