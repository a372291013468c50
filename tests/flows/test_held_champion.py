"""`eag-rl gc` beside `eag-rl serve`: what it answers from stays as long as it runs, and no longer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from configs.load import dump, load
from contracts.errors import ArtifactError
from flows.cli_serve import serve
from flows.free_space import free_space
from lineage.artifact import Artifact
from lineage.leases import guarded, leased, running
from support.small_store import put
from tasks.champion import Champion, held_champion
from tasks.session import Session, session_of

CHAIN = ("base", "cohort", "expert", "patients", "readings", "rl")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A study with a champion and a report, and another study, the only one that `gc` below keeps. MLflow: no alias."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    found = session_of(dump(load("demo", _settings(tmp_path))))
    vars(found)["tracker"] = SimpleNamespace(registry=SimpleNamespace(champion=lambda *_: None))
    store = found.store
    made: dict[str, Artifact] = {}

    def make(kind: str, *roles: str) -> None:
        made[kind] = put(store, kind, {f"{kind}.txt": kind}, {role: made[role] for role in roles})

    make("cohort")
    made["base"] = put(store, "base", {"model.json": f'{{"folder": "{tmp_path}"}}'})
    make("expert", "cohort")
    make("readings", "cohort", "expert")
    make("patients", "cohort", "readings")
    make("rl", "patients", "base")
    make("report", "rl")
    put(store, "cohort", {"meta.json": "{}"}, study="other")
    return found


def _settings(folder: Path) -> list[str]:
    return [f"paths.workspace={folder / 'workspace'}", "study.name=small"]


def gc(own: Session) -> dict[str, Any]:
    return free_space(own, ["other"], 0.0, dry_run=False)


def kinds(own: Session) -> set[str]:
    return {entry["artifact"]["kind"] for entry in own.store.manifests() if entry["study"] == "small"}


def test_what_is_served_stays_until_the_server_ends(own: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                    ) -> None:
    freed: list[dict[str, Any]] = []

    def answers(_session: Session, champion: Champion, _tell: object) -> None:
        freed.append(gc(own))
        assert all(own.store.verify(artifact) == [] for artifact in champion.artifacts.values())

    monkeypatch.setattr("flows.environment.prepare", lambda *_: None)
    monkeypatch.setattr("tasks.serve.serve", answers)
    serve("demo", _settings(tmp_path))
    assert (freed[0]["kept"], freed[0]["running"], freed[0]["answering"]) == (["other"], [], ["small"])
    assert kinds(own) == set(CHAIN) and freed[0]["counts"]["artifact"] == 1
    after = gc(own)
    assert after["answering"] == [] and kinds(own) == set()


def test_caches_go_while_a_champion_answers_and_stay_while_a_study_runs(own: Session) -> None:
    cached = own.workspace / "cache" / ".days-half"
    cached.mkdir(parents=True)
    with held_champion(own):
        with leased(own.workspace, "small"):
            assert "cache" not in gc(own)["counts"] and cached.exists()
        assert gc(own)["counts"]["cache"] == 1 and not cached.exists()


def test_a_champion_that_is_gone_leaves_no_lease(own: Session) -> None:
    gc(own)
    with pytest.raises(ArtifactError, match="no finished 'rl'"), held_champion(own):
        raise AssertionError("it is held")
    with guarded(own.workspace):
        assert running(own.workspace) == []
