"""How every flow begins: its parameters become a session, its inputs come from the flow before where none are given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker

from configs.load import dump, load
from lineage.artifact import Artifact
from lineage.fingerprint import flatten, git_commit, versions
from lineage.leases import leased
from tasks import why
from tasks.servers import stop_servers
from tasks.session import Session, session_of
from tasks.stage import TRACKED

Artifacts = dict[str, dict[str, str]]
_DELIVERY_SECONDS = 10.0


def open_session(config: str, overrides: Sequence[str]) -> Session:
    """The session of a named configuration with overrides."""
    return session_of(dump(load(config, overrides)))


def given(made: Mapping[str, Mapping[str, str]] | None, before: Callable[..., Artifacts], config: str,
          overrides: Sequence[str]) -> dict[str, Artifact]:
    """The artifacts made so far, as handed over, or made now by the flow before."""
    return taken(made if made is not None else before(config, overrides))


def taken(values: Mapping[str, Mapping[str, str]]) -> dict[str, Artifact]:
    """The inverse of `handed`."""
    return {role: Artifact.from_json(entry) for role, entry in values.items()}


def handed(artifacts: Mapping[str, Artifact]) -> Artifacts:
    """Artifacts as the JSON that flows return."""
    return {role: artifact.to_json() for role, artifact in artifacts.items()}


def deliver_logs() -> None:
    """Waits until Prefect's server has the logs and events of this process, before that server is stopped."""
    APILogWorker.drain_all(timeout=_DELIVERY_SECONDS)
    EventsWorker.drain_all(timeout=_DELIVERY_SECONDS)


@contextmanager
def held(session: Session) -> Iterator[Session]:
    """Keeps what the block uses and makes from being removed as garbage; nothing to do where a study does so already.
    """
    if session.lease is not None and session.lease.path is not None:  # an arm's session may remember an ended one
        yield session
        return
    try:
        with leased(session.workspace, session.config.study.name) as session.lease:
            yield session
    finally:
        session.lease = None


@contextmanager
def study(session: Session) -> Iterator[Session]:
    """A parent run in MLflow around a whole study; model servers are stopped at its end, however it ends."""
    settings: dict[str, Any] = flatten(dump(session.config))
    session.decisions.clear()
    session.store.require_writable()
    try:
        with (leased(session.workspace, session.config.study.name) as session.lease,
              session.tracker.study_run(settings, versions(TRACKED), git_commit(), session.sweep_run) as run_id):
            session.study_run = session.last_study_run = run_id
            yield session
        rows = [(one.stage, one.ran, one.why, one.cost, one.artifact) for one in session.decisions]
        why.publish(why.table(rows), f"{session.config.study.name}-why", "Why each stage ran, or did not")
    finally:
        session.study_run = session.lease = None
        stop_servers()
