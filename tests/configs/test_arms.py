"""Arms: rows of the result table as YAML files, shipped ones and the user's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.load import dump, for_arm, load, shipped_arms
from configs.schema import Config
from contracts.errors import ConfigError
from contracts.features import catalogue


def test_every_shipped_arm_is_valid_in_every_small_study() -> None:
    for study in ("demo", "tjh_small", "tjh"):
        config = load(study, [f"evaluation.arms={shipped_arms()}".replace("'", "")])
        for name in shipped_arms():
            _, own = for_arm(config, name)
            assert own.evaluation.style == config.arms[name].style


def test_an_arm_sets_what_it_says_and_nothing_else() -> None:
    config = load("demo", ["evaluation.arms=[grpo, sft_labels_short]"])
    prepared, own = for_arm(config, "grpo")
    assert prepared == config
    assert own.policy.grpo.reward_weight == 1.0 and own.rewards == config.rewards
    assert (own.policy.grpo.entropy_clip, own.policy.grpo.clip_min) == (False, 0.2)
    assert own.prompts == config.prompts and own.search == config.search
    prepared, own = for_arm(config, "sft_labels_short")
    assert prepared.prompts.visits == own.prompts.visits == 1
    assert prepared.policy.sft == config.policy.sft and own.policy.sft.epochs == 5
    assert own.evaluation.style == "vanilla"


def test_an_arm_may_take_a_setting_back_to_none() -> None:
    config = load("demo", ["policy.sft.answer_share=0.5", "evaluation.arms=[plain, stage1]",
                           "arms.plain={title: Plain, adapter: trajectories, train: {policy.sft.answer_share: null}}"])
    assert for_arm(config, "plain")[1].policy.sft.answer_share is None
    assert for_arm(config, "stage1")[1].policy.sft.answer_share == 0.5
    assert Config.model_validate(dump(config)) == config


def test_the_arms_of_random_sampling_differ_from_their_searches_in_the_method_alone() -> None:
    pairs = {"stage1_sampling": "stage1_outcome_only", "stage1_best_of_n": "stage1"}
    config = load("demo", [f"evaluation.arms=[{', '.join([*pairs, *pairs.values()])}]"])
    for sampled, searched in pairs.items():
        one, other = for_arm(config, sampled)[0], for_arm(config, searched)[0]
        assert one.search == other.search.model_copy(update={"method": "sampling"})
        assert (one.rewards, one.policy, one.prompts) == (other.rewards, other.policy, other.prompts)


def test_dynamic_sampling_spends_no_more_rollouts_than_the_study() -> None:
    config = load("tjh_small", ["evaluation.arms=[dapo]"])
    # 8 steps, 4 a rollout batch, 4 prompts with 4 rollouts each
    assert for_arm(config, "dapo")[1].policy.grpo.rollout_budget == 32
    told = load("tjh_small", ["evaluation.arms=[dapo]", "policy.grpo.rollout_budget=48"])
    assert for_arm(told, "dapo")[1].policy.grpo.rollout_budget == 48


def test_a_file_of_the_users_own_becomes_an_arm(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("title: Mine\nadapter: rl\nstart: base\ntrain: {policy.grpo.clip_max: 0.3}\n")
    config = load("demo", [f"evaluation.arms=[decomposition, {file}]"])
    assert config.evaluation.arms == ("decomposition", "mine")
    assert for_arm(config, "mine")[1].policy.grpo.clip_max == 0.3
    assert Config.model_validate(dump(config)) == config


def test_an_arm_may_stand_in_the_configuration_itself() -> None:
    config = load("demo", ["arms.loud={title: Loud, style: think}", "evaluation.arms=[loud]"])
    assert config.arms["loud"].title == "Loud"


@pytest.mark.parametrize(("overrides", "message"), [
    (["evaluation.arms=[nobody]"], "no arm 'nobody'"),
    (["evaluation.arms=[think, think]"], "names think twice"),
    (["evaluation.arms=[x]", "arms.x={title: X, style: poem}"], "arms.x.style"),
    (["evaluation.arms=[x]", "arms.x={title: X, train: {policy.grpo.speed: 1}}"], "policy.grpo.speed: unknown setting"),
    (["evaluation.arms=[x]", "arms.x={title: X, train: {prompts.visits: 1}}"], "prompts.visits: an arm may set"),
    (["evaluation.arms=[x]", "arms.x={title: X, prepare: {cohort.split_seed: 1}}"], "cohort.split_seed: an arm may"),
    (["evaluation.arms=[x]", "arms.x={title: X, adapter: rl, style: think}"], "rollouts are question decompositions"),
    (["evaluation.arms=[x]", "arms.x={title: X, adapter: labels}"], "only a vanilla answer is a number alone")])
def test_what_is_wrong_with_an_arm_is_said(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load("demo", overrides)
    assert message in str(caught.value)


def test_the_short_prompt_of_tjh_shows_the_thirty_of_the_published_line() -> None:
    for study in ("tjh", "tjh_small", "tjh_arms"):
        prepared, own = for_arm(load(study, ["evaluation.arms=[sft_labels_short]"]), "sft_labels_short")
        shown = prepared.prompts.features
        assert isinstance(shown, tuple) and len(set(shown)) == 30 and "Lactate dehydrogenase" in shown
        assert own.policy.sft.lr == 1e-3 and set(shown) <= set(catalogue("tjh").names)


def test_an_arm_of_a_configuration_may_extend_a_shipped_one() -> None:
    config = load("demo", ["evaluation.arms=[shorter]",
                           "arms.shorter={extends: sft_labels_short, title: Shorter, train: {policy.sft.epochs: 2}}"])
    shipped = load("demo", ["evaluation.arms=[sft_labels_short]"]).arms["sft_labels_short"]
    assert config.arms["shorter"] == shipped.model_copy(update={
        "title": "Shorter", "train": {**shipped.train, "policy.sft.epochs": 2}})
    with pytest.raises(ConfigError, match=r"no_such_arm.*sft_labels.*arms\.shorter\.extends"):
        load("demo", ["arms.shorter={extends: no_such_arm}"])
