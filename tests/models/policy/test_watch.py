"""Failure signatures: each shows where it should, and nothing shows in a training that goes well."""

import random

import pytest

from configs.schema import Grpo
from models.policy.watch import warnings_of
from models.progress import Progress

SECTION = Grpo(minibatches=2, steps=40)


def training(noise: float = 0.0, batches: int = 20, **ends: tuple[float, float]) -> list[Progress]:
    """Two optimiser steps a rollout batch, metrics going in a line from one end to the other."""
    curves = {"entropy": (1.0, 0.8), "attention_reward": (0.5, 0.6), "outcome_reward": (-1.0, -0.5), **ends}
    dice, steps = random.Random(0), []
    for batch in range(batches):
        share = batch / max(batches - 1, 1)
        metrics = {name: start + (end - start) * share + dice.gauss(0, noise) for name, (start, end) in curves.items()}
        steps += [Progress(2 * batch + 1, 40, metrics), Progress(2 * batch + 2, 40, {**metrics, "entropy": 1e9})]
    return steps


def signatures(steps: list[Progress], weight: float = 0.6, section: Grpo = SECTION) -> list[str]:
    return [warning["signature"] for warning in warnings_of(steps, section, weight)]


def test_a_training_that_goes_well_has_no_warning() -> None:
    assert warnings_of(training(), SECTION, 0.6) == []
    assert signatures(training(noise=0.1, attention_reward=(0.6, 0.6), outcome_reward=(-1.0, -1.0))) == []


def test_entropy_that_collapses_is_seen_and_the_bound_that_clips_is_named() -> None:
    steps = training(entropy=(1.0, 0.05))
    (warning,) = warnings_of(steps, SECTION, 0.6)
    assert warning["signature"] == "entropy collapse" and "policy.grpo.clip_max (now 0.4)" in warning["remedy"]
    off = SECTION.model_copy(update={"entropy_clip": False})
    assert "policy.grpo.clip_min (now 0.2)" in warnings_of(steps, off, 1.0)[0]["remedy"]


def test_a_low_attention_reward_is_seen_only_where_it_is_rewarded() -> None:
    steps = training(attention_reward=(0.2, 0.25))
    assert signatures(steps) == ["low attention reward"] and signatures(steps, weight=1.0) == []
    assert signatures(training(attention_reward=(0.1, 0.5))) == [], "the end counts"


def test_attention_that_rises_while_the_outcome_falls_is_reward_hacking() -> None:
    ends = {"attention_reward": (0.4, 0.7), "outcome_reward": (-0.5, -0.9)}
    (warning,) = warnings_of(training(**ends), SECTION, 0.6)
    assert warning["signature"] == "reward hacking" and "(now 0.6) to 0.7 to 0.8" in warning["remedy"]
    assert "to 0.9," in warnings_of(training(**ends), SECTION, 0.8)[0]["remedy"]
    assert signatures(training(attention_reward=(0.4, 0.7), outcome_reward=(-0.9, -0.5))) == []
    assert signatures(training(attention_reward=(0.7, 0.4), outcome_reward=(-0.5, -0.9))) == []


def test_what_chance_explains_is_no_hacking() -> None:
    faint = {"attention_reward": (0.5, 0.53), "outcome_reward": (-1.0, -1.05)}
    assert signatures(training(**faint)) == ["reward hacking"] and signatures(training(noise=0.3, **faint)) == []


@pytest.mark.parametrize("batches", [1, 3])
def test_too_few_rollout_batches_tell_nothing(batches: int) -> None:
    assert warnings_of(training(batches=batches, entropy=(1.0, 0.0)), SECTION, 0.6) == []
