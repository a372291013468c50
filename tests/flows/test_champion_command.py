"""`eag-rl champion`: what it shows, what it sets, and what it refuses, on a real store and a real MLflow."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from contracts.errors import ArtifactError, ConfigError
from flows.cli import app
from lineage.artifact import Artifact
from lineage.store import Store
from support.tracked_study import make, session
from tasks.champion import champion_from, champion_of

pytestmark = pytest.mark.slow

WEIGHTS = {"adapter/adapter_config.json": "{}"}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Artifact]]:
    """A study with an expert and two policies in the workspace and in MLflow; none is champion."""
    folder, found = tmp_path_factory.mktemp("prepared"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        own = session(folder)
        _make(own, found)
    return folder, found


def _make(own: Any, found: dict[str, Artifact]) -> None:
    def put(name: str, kind: str, files: dict[str, str], *roles: str, **facts: Any) -> None:
        found[name] = Artifact.from_json(make(own, kind, files, {role: found[role] for role in roles}, **facts))

    put("cohort", "cohort", {"meta.json": "{}"})
    put("expert", "expert", {"weights.json": "{}"}, "cohort", model="concare")
    put("readings", "readings", {"x": ""}, "expert")
    put("patients", "patients", {"x": ""}, "cohort", "readings")
    put("base", "base", {"model.json": "{}"})
    put("odd", "rl", WEIGHTS, "base", model="lora-adapter")
    put("rl", "rl", WEIGHTS, "base", "patients", model="lora-adapter")


@pytest.fixture
def made(prepared: tuple[Path, dict[str, Artifact]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
         ) -> dict[str, Artifact]:
    """The artifacts of a copy of the prepared workspace, on which the command works."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("flows.environment.prepare", lambda *_: None)
    shutil.copytree(prepared[0], tmp_path / "workspace")
    return prepared[1]


def ask(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["champion", *arguments, "--set", f"paths.workspace={folder / 'workspace'}", "--set",
                                    "study.name=small"])


def values(result: Result) -> dict[str, Any]:
    assert result.exception is None, result.exception
    return json.loads(result.stdout.splitlines()[-1])


def test_as_long_as_there_is_none_it_says_who_answers(made: dict[str, Artifact], tmp_path: Path) -> None:
    assert values(ask(tmp_path, "--json")) == {"study": "small", "expert": None, "policy": None}
    said = ask(tmp_path).stdout
    assert said.count("none") == 2 and f"the study's last one answers: {made['rl'].id}" in said


def test_a_choice_by_hand_stands_with_its_time_and_reason(made: dict[str, Artifact], tmp_path: Path) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    found = values(ask(tmp_path, "--crown", made["rl"].id[:9], "--reason", "calmer on\nnight [bold] shifts", "--json"))
    assert found["expert"] is None
    policy = found["policy"]
    assert (policy["model"], policy["version"], policy["artifact"]) == ("small.policy", 1, made["rl"].id)
    assert policy["reason"] == "calmer on night [bold] shifts"
    assert before <= datetime.fromisoformat(policy["since"]) <= datetime.now(UTC)
    assert values(ask(tmp_path, "--crown", made["expert"].id, "--reason", "x", "--json"))["policy"] == policy
    again = values(ask(tmp_path, "--crown", "rl", "--reason", "still", "--json"))["policy"]
    assert again == {**policy, "reason": "still"}
    said = ask(tmp_path).stdout
    assert made["rl"].id in said and made["expert"].id in said and "still" in said and "answers" not in said


def test_what_cannot_be_champion_is_refused_and_nothing_changes(made: dict[str, Artifact], tmp_path: Path) -> None:
    for arguments, kind, value in (
            (("--crown", "rl-nobody", "--reason", "x"), ArtifactError, "no artifact 'rl-nobody'"),
            (("--crown", made["cohort"].id, "--reason", "x"), ArtifactError, "is of kind cohort"),
            (("--crown", made["odd"].id, "--reason", "x"), ArtifactError, "was made without 'patients'"),
            (("--crown", made["rl"].id), ConfigError, "--reason of 0 characters"),
            (("--crown", made["rl"].id, "--reason", " \n"), ConfigError, "--reason of 0 characters"),
            (("--crown", made["rl"].id, "--reason", "x" * 501), ConfigError, "--reason of 501 characters"),
            (("--reason", "x"), ConfigError, "--reason without --crown")):
        error = ask(tmp_path, *arguments).exception
        assert isinstance(error, kind) and value in error.value and error.rule and error.next_step, arguments
    (Store(tmp_path / "workspace").folder(made["rl"]) / "adapter" / "adapter_config.json").write_text("{ }")
    error = ask(tmp_path, "--crown", made["rl"].id, "--reason", "x").exception
    assert isinstance(error, ArtifactError) and "was altered: adapter/adapter_config.json" in error.value
    assert values(ask(tmp_path, "--json"))["policy"] is None


def test_a_study_whose_champion_is_set_by_hand_answers_from_it(made: dict[str, Artifact], tmp_path: Path) -> None:
    own = session(tmp_path / "workspace")
    newer = Artifact.from_json(make(own, "rl", WEIGHTS, {role: made[role] for role in ("base", "patients", "cohort")},
                                    model="lora-adapter"))
    values(ask(tmp_path, "--crown", made["rl"].id, "--reason", "x", "--json"))
    assert own.store.latest("small", "rl") == newer != made["rl"]
    assert champion_of(own) == champion_from(own.store, made["rl"])


@pytest.mark.usefixtures("made")
def test_a_model_for_another_outcome_is_not_crowned(tmp_path: Path) -> None:
    own = session(tmp_path / "workspace")
    cohort = Artifact.from_json(make(own, "cohort", {"meta.json": '{"a": 1}'}, outcome="readmission"))
    other = Artifact.from_json(make(own, "expert", {"weights.json": "[]"}, {"cohort": cohort}, model="concare"))
    error = ask(tmp_path, "--crown", other.id, "--reason", "x").exception
    assert isinstance(error, ArtifactError) and "predict readmission, the study is about mortality" in error.value
    assert values(ask(tmp_path, "--json"))["expert"] is None
