"""Dynamic sampling: which groups give way, to whom, what it costs, and that a kill changes nothing."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from configs.schema import Grpo
from contracts.errors import ConfigError
from models.policy import grpo
from models.policy.budget import Budget
from models.policy.chat import load_tokenizer
from models.policy.resampling import Completion, Group, equal, fill, replacements
from models.policy.scoring import teaches
from models.progress import read
from support.pretended_engine import Killed, PretendedEngine

pytestmark = pytest.mark.slow

Make = Callable[..., dict[str, Any]]
Run = Callable[..., tuple[dict[str, Any], PretendedEngine]]
DAPO = {"entropy_clip": False, "clip_min": 0.28, "loss": "dapo", "reward_weight": 1.0, "resample_rounds": 2,
        "generations": 2, "prompts_per_batch": 4, "minibatches": 2, "micro_batch": 4, "completion_tokens": 60}


def group(stay_id: str, number: int = 0) -> Group:
    return Group(stay_id, (Completion((1,)), Completion((2,))), number)


def names(groups: Sequence[Group]) -> list[str]:
    return [f"{one.stay_id}{one.round}" for one in groups]


def filled(first: str, others: str, signal: str, rounds: int, affordable: int | None = None
           ) -> tuple[list[str], list[str], list[list[str]]]:
    asked: list[list[str]] = []

    def generate(stays: Sequence[str], number: int) -> list[Group]:
        asked.append(list(stays))
        return [group(stay_id, number) for stay_id in stays]

    batch = fill([group(one) for one in first], list(others), generate, lambda one: one.stay_id in signal, rounds,
                 affordable)
    return names(batch.kept), names(batch.dropped), asked


def test_groups_without_a_signal_give_way_in_their_place() -> None:
    assert filled("AbCd", "xYZw", "ACYZ", rounds=3) == (["A0", "Y1", "C0", "Z2"], ["x1", "b0", "d0"],
                                                        [["x", "Y"], ["Z"]])


def test_what_no_round_could_replace_stays_and_is_no_secret() -> None:
    kept, dropped, asked = filled("ab", "xyzw", "", rounds=2)
    assert kept == ["a0", "b0"] and dropped == ["x1", "y1", "z2", "w2"] and len(asked) == 2
    assert filled("ab", "x", "", rounds=5) == (["a0", "b0"], ["x1"], [["x"]])


def test_a_full_batch_or_no_rounds_cost_nothing() -> None:
    assert filled("AB", "XY", "ABXY", rounds=3) == (["A0", "B0"], [], [])
    assert filled("ab", "XY", "XY", rounds=0) == (["a0", "b0"], [], [])


def test_no_more_groups_are_sampled_than_can_be_paid() -> None:
    assert filled("abc", "xyZW", "ZW", rounds=5, affordable=3) == (["Z1", "b0", "c0"], ["x1", "y1", "a0"],
                                                                   [["x", "y", "Z"]])
    assert filled("ab", "XY", "XY", rounds=5, affordable=0) == (["a0", "b0"], [], [])


def test_the_stays_that_stand_in_follow_from_seed_and_step_alone() -> None:
    stays = [f"s{index}" for index in range(20)]
    random.seed(1)
    first = replacements(stays, {"s3", "s5"}, seed=7, step=4)
    random.seed(2)
    assert replacements(stays, {"s3", "s5"}, seed=7, step=4) == first
    assert sorted(first) == sorted(set(stays) - {"s3", "s5"})
    assert first != replacements(stays, {"s3", "s5"}, 7, 6) != replacements(stays, {"s3", "s5"}, 8, 6)


def test_a_group_teaches_if_its_rewards_differ_and_one_of_it_counts() -> None:
    assert equal([0.3, 0.3 + 1e-9]) and not equal([0.3, 0.31])
    assert teaches([0.1, 0.2], [False, False], mask_truncated=False)
    assert not teaches([0.1, 0.2], [False, False], mask_truncated=True)
    assert teaches([0.1, 0.2], [False, True], mask_truncated=True) and not teaches([0.2, 0.2], [True, True], True)


FLAT = {"s1", "s2", "s4", "s7"}


@pytest.fixture(scope="module")
def run() -> Run:
    """Runs a job with the pretended engine, which may die at one of its calls."""

    def optimise(values: dict[str, Any], die_at: int = 0) -> tuple[dict[str, Any], PretendedEngine]:
        engine = PretendedEngine(load_tokenizer(Path(values["model"])), DAPO["completion_tokens"], FLAT, die_at)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(grpo, "make_engine", lambda *_: engine)
            if not die_at:
                return grpo.optimise(values), engine
            with pytest.raises(Killed):
                grpo.optimise(values)
            return {}, engine

    return optimise


@pytest.fixture(scope="module")
def whole(make_job: Make, run: Run, tmp_path_factory: pytest.TempPathFactory
          ) -> tuple[dict[str, Any], dict[str, Any], PretendedEngine]:
    """A job of two rollout batches, what it returned, and its engine."""
    values = make_job(tmp_path_factory.mktemp("whole"), **DAPO, steps=4)
    return values, *run(values)


def table(values: dict[str, Any]) -> pl.DataFrame:
    return pl.read_parquet(Path(values["out"]) / "rollouts.parquet")


def test_a_training_replaces_counts_and_writes_down(whole: tuple[dict, dict, PretendedEngine]) -> None:
    values, done, engine = whole
    rollouts, steps = table(values), read(Path(values["out"]) / "progress.jsonl")
    assert rollouts.height == sum(len(asked) for asked in engine.asked) == done["rollouts"]
    kept = rollouts.filter("kept")
    assert kept.group_by("step").len()["len"].to_list() == [8, 8]
    assert done["resampled_groups"] == (rollouts.height - 16) // 2 > 0
    spreads = kept.group_by("step", "stay_id").agg(pl.col("reward").max() - pl.col("reward").min())
    assert done["groups_without_signal"] == spreads.filter(pl.col("reward") < 1e-6).height
    assert not set(kept.filter(pl.col("round") > 0)["stay_id"]) & engine.flat
    assert set(rollouts.filter(~pl.col("kept") & (pl.col("round") == 0))["stay_id"]) & engine.flat
    assert (kept["reward"] == kept["outcome_reward"]).all(), "reward_weight = 1 leaves R_cls alone"
    for number, step in enumerate(steps):
        before = rollouts.filter(pl.col("step") <= number - number % 2)
        assert step.metrics["rollouts_spent"] == before.height
        now = before.filter(pl.col("step") == number - number % 2)
        assert step.metrics["resampled_groups"] == now.filter(~pl.col("kept")).height / 2
        assert step.metrics["reward"] == pytest.approx(now.filter("kept")["reward"].mean())


@pytest.mark.parametrize("batch", [0, 1])
def test_a_job_killed_while_it_resamples_ends_like_one_that_was_not(whole: tuple[dict, dict, PretendedEngine],
                                                                    policy_job: Make, run: Run, batch: int) -> None:
    (first, done, engine), cut = whole, policy_job("cut", **DAPO, steps=4)
    # The last round of batch 0, sampled by a fresh adapter, or of batch 1, after a checkpoint and two finished rounds.
    second = [number for number, asked in enumerate(engine.asked) if len(asked) == 8][1]
    assert len(engine.asked) - second == 3
    die_at = [second, len(engine.asked)][batch]
    assert 0 < len(engine.asked[die_at - 1]) < 8
    run(cut, die_at)
    again, resumed = run(cut)
    assert resumed.asked[0] == engine.asked[die_at - 1], "rounds that were finished are not sampled again"
    assert table(cut).equals(table(first))
    assert {name: again[name] for name in again if name != "seconds"} == {
        name: done[name] for name in done if name != "seconds"}
    weights = [load_file(Path(one["out"]) / "adapter" / "adapter_model.safetensors") for one in (first, cut)]
    assert all(torch.allclose(weight, weights[1][name], atol=1e-6) for name, weight in weights[0].items())


def test_training_ends_where_the_next_batch_cannot_be_paid(policy_job: Make, run: Run) -> None:
    values = policy_job(**DAPO, steps=20, rollout_budget=26, checkpoint_batches=5)
    done, _ = run(values)
    assert done["steps"] < 20 and 26 - 8 < done["rollouts"] <= 26
    assert done["ended_early"] == (
        f"policy.grpo.rollout_budget = 26 rollouts: {done['rollouts']} are spent after {done['steps']} of 20 optimiser "
        "steps, and the next batch takes 8")
    adapter = (Path(values["out"]) / "adapter" / "adapter_model.safetensors").read_bytes()
    (Path(values["out"]) / "done.json").unlink()
    again, engine = run(values)
    assert engine.asked == [] and again["steps"] == done["steps"], "what was killed after its last step only ends"
    assert (Path(values["out"]) / "adapter" / "adapter_model.safetensors").read_bytes() == adapter
    assert json.loads((Path(values["out"]) / "done.json").read_text())["ended_early"] == done["ended_early"]


def test_the_budget_pays_whole_groups_and_whole_batches() -> None:
    section = Grpo(generations=4, prompts_per_batch=2, minibatches=2, micro_batch=4, steps=10, rollout_budget=30)
    budget = Budget(section, lambda step: 8 * step // 2)
    assert [budget.groups_beyond(step) for step in (0, 2, 4, 6)] == [5, 3, 1, 0]
    assert [budget.exhausted(step) for step in (0, 4, 6)] == [False, False, True]
    unlimited = Budget(section.model_copy(update={"rollout_budget": None}), lambda _: 10**9)
    assert unlimited.groups_beyond(0) is None and not unlimited.exhausted(0) and unlimited.ending(2) is None
    assert Budget(section, lambda _: 30).ending(10) is None, "a training that took all its steps did not end early"


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValidationError, match="must pay for one rollout batch"):
        Grpo(rollout_budget=31)
    with pytest.raises(ValidationError, match="smaller than completion_tokens"):
        Grpo(completion_tokens=64, overlong_buffer=64)
    with pytest.raises(ConfigError, match="needs other prompts"):
        grpo.prompt_order(["a", "b", "c", "d"], Grpo(resample_rounds=1), seed=1)
