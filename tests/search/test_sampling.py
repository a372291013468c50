"""Random sampling: independent whole trajectories, the same budget and records as the search, nothing that guides."""

import asyncio
import random
from collections import Counter
from dataclasses import replace

import pytest

from configs.schema import Search
from prompts import grammar
from search.forest import grow
from search.harvest import best, harvest, statistics
from search.mcts import Settings
from search.sampling import sample
from search.tree import Node
from support.scripted_model import ScriptedModel
from support.search_child import patients, reasoner

SECTION = Search(method="sampling", rollouts=6, depth=4, candidates=3, keep=2, patients_at_once=2)


class Coin:
    """Words that append a letter drawn from the place's seed until "z"; `usefulness` does not exist here."""

    def __init__(self, letters="abz", pause=None):
        self.letters, self.pause, self.counts = letters, pause, set()

    async def actions(self, state, place, count, last):
        self.counts.add(count)
        await asyncio.sleep(self.pause() if self.pause else 0)
        noise = random.Random(f"{place}|{state}")
        return ["z" if last else noise.choice(self.letters) for _ in range(count)]

    async def answer(self, state, action, _place):
        return state + action

    def terminal(self, state):
        return state.endswith("z")

    def reward(self, state):
        return float(len(state))


async def _grown(tmp_path, model=None, section=SECTION, count=2):
    return await grow(patients(count), reasoner(model or ScriptedModel(), section), tmp_path)


async def test_trajectories_are_drawn_with_the_chances_of_the_problem():
    drawn = await sample(Coin(), Node(""), Settings(rollouts=3000, depth=9))
    lengths = Counter(len(one.state) for one in drawn)
    for length in (1, 2, 3):  # an end at each step with chance 1/3
        assert lengths[length] / 3000 == pytest.approx(1 / 3 * (2 / 3) ** (length - 1), abs=0.03)
    assert max(lengths) <= 9 and all(not one.revisit for one in drawn)


async def test_each_trajectory_is_a_branch_with_its_reward_and_the_root_has_their_mean():
    root, problem = Node(""), Coin()
    drawn = await sample(problem, root, Settings(rollouts=5, depth=4))
    assert problem.counts == {1}, "one candidate a step"
    assert [one.number for one in drawn] == list(range(5)) and len(root.children) == root.visits == 5
    assert root.value == pytest.approx(sum(one.reward for one in drawn) / 5)
    for branch, one in zip(root.children, drawn, strict=True):
        assert (branch.visits, branch.value) == (1, one.reward) and one.place[0] == one.number


async def test_samples_do_not_depend_on_the_order_of_completion():
    calm = await sample(Coin(), Node(""), Settings(rollouts=8, depth=4))
    noise = random.Random(0)
    assert await sample(Coin(pause=lambda: noise.random() / 300), Node(""), Settings(rollouts=8, depth=4)) == calm


async def test_a_problem_that_never_ends_is_refused():
    endless = Coin("ab")
    endless.terminal = lambda _: False
    with pytest.raises(RuntimeError, match="no end within 3 actions"):
        await sample(endless, Node(""), Settings(rollouts=1, depth=3))


async def test_a_patient_gets_n_well_formed_trajectories_and_no_usefulness_is_asked_for(tmp_path):
    model = ScriptedModel()
    grown = await _grown(tmp_path, model)
    assert all(len(one.trajectories) == SECTION.rollouts for one in grown)
    for one in (trajectory for patient in grown for trajectory in patient.trajectories):
        parsed = grammar.parse(one.text)
        assert one.well_formed and parsed.well_formed and 2 <= one.depth <= SECTION.depth
        assert len(set(parsed.features)) == 5 and parsed.probability == one.probability
    assert not any(call["top_logprobs"] for call in model.calls)
    assert all("usefulness" not in one.calls and one.calls["question"] >= SECTION.rollouts for one in grown)
    assert len({one.text for one in grown[0].trajectories}) > 1, "seeds differ between samples"


async def test_the_best_by_reward_are_kept_and_the_numbers_are_those_of_a_search(tmp_path):
    grown = await _grown(tmp_path)
    kept = harvest(grown, SECTION.keep)
    for patient in grown:
        rewards = sorted((one.reward for one in best(patient.trajectories, 99)), reverse=True)
        assert kept.filter(stay_id=patient.stay_id)["reward"].to_list() == rewards[:2]
    searched = statistics(await _grown(tmp_path / "tree", section=SECTION.model_copy(update={"method": "tree"})), 2)
    sampled = statistics(grown, 2)
    assert sampled["rollouts"] == searched["rollouts"] == 12 and sampled["revisits"] == 0.0
    assert set(searched) - set(sampled) <= {"calls_usefulness", *(name for name in searched if "fault" in name)}
    assert sampled["calls"] < searched["calls"]


async def test_a_second_run_asks_nothing_and_more_patients_ask_only_for_those(tmp_path):
    first = await _grown(tmp_path)
    model = ScriptedModel()
    assert (await _grown(tmp_path, model, count=3))[:2] == first
    assert {call["prompt"].partition("Heart Rate: ")[2][0] for call in model.calls} == {"2"}


@pytest.mark.parametrize(("change", "again"), [
    ({"candidates": 2}, False), ({"exploration": 3.0}, False), ({"keep": 1}, False), ({"depth": 3}, True),
    ({"rollouts": 5}, True), ({"method": "tree"}, True)])
async def test_records_are_made_anew_where_a_setting_matters_to_sampling(tmp_path, change, again):
    await _grown(tmp_path)
    model = ScriptedModel()
    await _grown(tmp_path, model, SECTION.model_copy(update=change))
    assert bool(model.calls) == again


async def test_another_seed_gives_other_trajectories(tmp_path):
    first = await _grown(tmp_path / "a")
    other = await grow(patients(2), replace(reasoner(ScriptedModel(), SECTION), seed=43), tmp_path / "b")
    assert {one.text for one in first[0].trajectories} != {one.text for one in other[0].trajectories}
