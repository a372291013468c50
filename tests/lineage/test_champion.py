"""The champion in MLflow's registry: an alias that moves to the version made from an artifact's logged model."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.errors import ArtifactError
from lineage.artifact import Artifact
from lineage.tracking import Tracker
from lineage.tracking_registry import CHAMPION, model_name


def artifact(number: int) -> Artifact:
    return Artifact("expert", f"expert-{number}", f"artifacts/expert/expert-{number}", f"{number}" * 64, "r" * 64)


def logged(tracker: Tracker, folder: Path, number: int) -> Artifact:
    """A model of its own, logged by a run as a stage does it."""
    made = artifact(number)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights.json").write_text(str(number))
    with tracker.stage_run(None, "expert", {}) as run:
        tracker.model(run, made, folder, "concare")
    return made


@pytest.mark.slow
def test_the_alias_moves_to_the_model_of_the_new_champion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracker = Tracker(tmp_path, "tiny")
    registry = tracker.registry
    assert registry.champion("tiny", "expert") is None
    first, second = (logged(tracker, tmp_path / str(number), number) for number in (1, 2))
    assert [registry.crown("tiny", "expert", first, "the first").number for _ in range(2)] == [1, 1]
    assert registry.crown("tiny", "expert", second, "better") == registry.champion("tiny", "expert")
    found = tracker.client.get_model_version_by_alias(model_name("tiny", "expert"), CHAMPION)
    assert (int(found.version), found.tags["artifact.id"], found.tags["eag_rl.champion"]) == (2, second.id, "better")
    assert found.run_id == tracker.client.get_logged_model(found.tags["model.id"]).source_run_id
    assert registry.crown("tiny", "expert", first, "back").number == 1
    assert registry.champion("tiny", "expert").artifact == first.id


@pytest.mark.slow
def test_a_model_that_was_never_logged_cannot_be_champion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ArtifactError, match="expert-9 has no model in MLflow"):
        Tracker(tmp_path, "tiny").registry.crown("tiny", "expert", artifact(9), "")
