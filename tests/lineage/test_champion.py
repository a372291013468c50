"""The champion in MLflow's registry: an alias that moves to the version made from an artifact's logged model."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.errors import ArtifactError
from lineage.artifact import Artifact
from lineage.champion import ALIAS, champion, crown, model_name
from lineage.tracking import Tracker


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


def test_the_alias_moves_to_the_model_of_the_new_champion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracker, name = Tracker(tmp_path, "tiny"), model_name("tiny", "expert")
    assert champion(tracker.client, name) is None
    first, second = (logged(tracker, tmp_path / str(number), number) for number in (1, 2))
    assert crown(tracker, "expert", first, "the first") == crown(tracker, "expert", first, "again") == "1"
    assert crown(tracker, "expert", second, "better") == "2" == champion(tracker.client, name)
    found = tracker.client.get_model_version_by_alias(name, ALIAS)
    assert found.tags["artifact.id"] == second.id and found.tags["eag_rl.champion"] == "better"
    assert found.run_id == tracker.client.get_logged_model(found.tags["model.id"]).source_run_id
    assert crown(tracker, "expert", first, "back") == "1" == champion(tracker.client, name)


def test_a_model_that_was_never_logged_cannot_be_champion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ArtifactError, match="expert-9 has no model in MLflow"):
        crown(Tracker(tmp_path, "tiny"), "expert", artifact(9), "")
