"""What a stage that was ended just after its artifact was finished could not tell MLflow any more: told later.

In: an artifact that a study uses again. Its run in MLflow is looked at; where it never came to its end, or its model
was never logged whole, output and model are logged now, so that no finished training is made again for its record.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lineage.artifact import Artifact
from lineage.store import MANIFEST
from tasks.session import Session


def record_again(session: Session, artifact: Artifact) -> None:
    """Completes the record of a finished artifact in MLflow; does nothing where it is whole.

    An artifact that was tracked in another MLflow gets a run here only where it holds a model, which a registered model
    needs.
    """
    if _whole(session, artifact, session.store.manifest(artifact)):
        return
    with session.store.holding(artifact.kind, artifact.recipe):  # its maker, or another study, may be at it
        entry = session.store.manifest(artifact)
        if not _whole(session, artifact, entry):
            _record(session, artifact, entry)


def _whole(session: Session, artifact: Artifact, entry: Mapping[str, Any]) -> bool:
    tracker, run = session.tracker, str(entry.get("tracking_run", ""))
    if entry.get("model") and tracker.registry.logged_model(artifact.id, artifact.sha256) is None:
        return False
    return not tracker.known(run) or tracker.finished(run)


def _record(session: Session, artifact: Artifact, entry: Mapping[str, Any]) -> None:
    tracker, run = session.tracker, str(entry.get("tracking_run", ""))
    if not tracker.known(run):
        with tracker.stage_run(session.study_run, artifact.kind, {"recipe": artifact.recipe}) as own:
            _output(session, own, artifact, entry)
        return
    _output(session, run, artifact, entry)
    tracker.finish(run)


def _output(session: Session, run: str, artifact: Artifact, entry: Mapping[str, Any]) -> None:
    tracker, folder = session.tracker, session.store.folder(artifact)
    tracker.output(run, artifact, folder, [MANIFEST, *entry.get("show", ())])
    if entry.get("model") and tracker.registry.logged_model(artifact.id, artifact.sha256) is None:
        tracker.registry.drop_unfinished(artifact.id)
        tracker.model(run, artifact, folder, str(entry["model"]))
