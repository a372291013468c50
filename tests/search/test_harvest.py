"""The k best distinct trajectories, and what a search was like in numbers."""

import math

import pytest

from contracts.frames import TRAJECTORIES
from search.harvest import Grown, Trajectory, best, harvest, statistics


def _one(rollout, text, reward, probability=0.5, well_formed=True):
    return Trajectory(rollout, text, reward, reward - 0.1, 0.25, probability, ("pH",), 2, well_formed, False)


def _grown(stay, trajectories, calls=10):
    return Grown(stay, tuple(trajectories), {}, {"question": calls}, {"truncated": 1}, 100, 20)


def test_the_best_come_first_and_equals_in_rollout_order():
    found = best([_one(0, "a", 0.1), _one(1, "b", 0.7), _one(2, "c", 0.7), _one(3, "d", -2.0)], 3)
    assert [one.rollout for one in found] == [1, 2, 0]


def test_the_same_text_counts_once_and_the_earlier_rollout_stays():
    found = best([_one(3, "Is it LOW?", 0.7), _one(1, "is it low", 0.7), _one(2, "other", 0.1)], 2)
    assert [(one.rollout, one.text) for one in found] == [(1, "is it low"), (2, "other")]


def test_fewer_distinct_trajectories_than_k_are_all_kept():
    assert len(best([_one(0, "a", 0.1), _one(1, "a", 0.1)], 5)) == 1


def test_the_harvest_keeps_its_contract_and_the_order_of_the_patients():
    frame = harvest([_grown("b", [_one(0, "x", 0.2), _one(1, "y", 0.4)]), _grown("a", [_one(0, "z", -1.0)])], 2)
    assert TRAJECTORIES.check(frame).select("stay_id", "rank", "text").rows() == [
        ("b", 1, "y"), ("b", 2, "x"), ("a", 1, "z")]


def test_an_empty_harvest_is_an_empty_frame_of_the_contract():
    assert TRAJECTORIES.check(harvest([], 2)).is_empty()


def test_statistics_compare_all_rollouts_with_the_kept_ones():
    numbers = statistics([_grown("a", [_one(0, "x", 0.0, 0.05), _one(1, "y", 1.0, 0.95)]),
                          _grown("b", [_one(0, "x", -1.0, 0.05), _one(1, "y", 0.0, 0.95, well_formed=False)])], 1)
    assert numbers["reward_all"] == pytest.approx(0.0)
    assert numbers["reward_kept"] == pytest.approx(0.5)
    assert numbers["well_formed"] == pytest.approx(0.75)
    assert numbers["probability_entropy"] == pytest.approx(math.log(2))
    assert (numbers["calls"], numbers["calls_question"], numbers["fault_truncated"]) == (20, 20, 2)
    assert (numbers["prompt_tokens"], numbers["completion_tokens"], numbers["calls_per_patient"]) == (200, 40, 10)


def test_a_policy_that_says_one_number_to_everybody_has_no_entropy():
    assert statistics([_grown("a", [_one(0, "x", 0.0), _one(1, "y", 1.0)])], 1)["probability_entropy"] == 0.0
