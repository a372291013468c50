"""A study makes those of its two stages that some arm stands on, and no more."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from configs.load import load
from flows import before_judging, run_study
from flows.arms import stages_needed
from flows.parts import Until


@pytest.mark.parametrize(("arms", "needed"), [
    (["vanilla", "think"], 0), (["sft_labels"], 0), (["without_stage1"], 0), (["vanilla", "stage1"], 1),
    (["grpo"], 1), (["stage1_sampling"], 0), (["stage1", "grpo", "without_stage1"], 1), (["vanilla", "stage1+2"], 2),
    (["without_stage1", "stage1+2", "grpo"], 2)])
def test_stages_are_those_that_some_arm_stands_on(arms: list[str], needed: int) -> None:
    config = load("demo", [f"evaluation.arms=[{', '.join(arms)}]"])
    assert stages_needed(config, config.evaluation.arms) == needed


@pytest.mark.parametrize(("arms", "until", "ran"), [
    ("[vanilla]", "report", ["expert", "report"]),
    ("[stage1]", "report", ["expert", "trees", "stage 1", "report"]),
    ("[stage1+2]", "report", ["expert", "trees", "stages 1 and 2", "report"]),
    ("[vanilla]", "policy", ["expert", "trees", "stages 1 and 2"]),
    ("[vanilla]", "trees", ["expert", "trees"]),
])
def test_a_study_runs_the_parts_that_are_needed(arms: str, until: str, ran: list[str], tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def part(name: str) -> Callable[..., dict[str, Any]]:
        def flow(*_: Any, stage_2: bool | None = None) -> dict[str, Any]:
            seen.append(name if stage_2 is None else ("stages 1 and 2" if stage_2 else "stage 1"))
            return {}
        return flow

    monkeypatch.setenv("EAG_RL_WORKSPACE", str(tmp_path))
    monkeypatch.setattr(run_study, "study", nullcontext)
    monkeypatch.setattr(run_study, "prepare_cohort", part("cohort"))
    monkeypatch.setattr(run_study, "tune_policy", part("policy"))
    monkeypatch.setattr(run_study, "_PARTS", {one: part(one.value) for one in run_study._PARTS})
    run_study.run_study.fn("demo", [f"evaluation.arms={arms}"], Until(until))
    assert seen == ["cohort", *ran]


def test_what_is_judged_alone_asks_for_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(before_judging, "tune_policy", lambda stage_2=True: asked.append(stage_2) or {})
    config = load("demo", [])
    for arms in (["stage1"], ["stage1+2"]):
        before_judging.before_judging(config, arms)()
    assert asked == [False, True]
    assert before_judging.before_judging(config, ["vanilla"]) is before_judging.train_expert
