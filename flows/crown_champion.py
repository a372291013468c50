"""`eag-rl champion`: which expert and which policy are a study's champions, since when and why; or one set by hand."""

from __future__ import annotations

from typing import Any

from contracts.errors import ArtifactError, ConfigError
from lineage.artifact import Artifact
from lineage.leases import guarded
from lineage.tracking_registry import ROLES, Crowned
from tasks.champion import champion_from
from tasks.session import Session

LONGEST = 500


def champions(session: Session) -> dict[str, Any]:
    """By role (expert, policy) the champion's model, version, artifact, since (UTC) and reason; None: nobody is."""
    study, registry = session.config.study.name, session.tracker.registry
    return {"study": study, **{role: _facts(registry.crowned(study, role)) for role in ROLES.values()}}


def last_policy(session: Session) -> str:
    """Id of the policy that answers as long as none is champion; "" where the study has made none."""
    try:
        return session.store.latest(session.config.study.name, "rl").id
    except ArtifactError:
        return ""


def crown_champion(session: Session, name: str, reason: str) -> dict[str, Any]:
    """Makes an artifact the champion of the study, in the role of its kind; returns `champions`.

    Args:
        name: of the artifact: its id, the beginning of it, or a kind (the newest).
        reason: why, for whoever asks later.

    Raises:
        ConfigError: the reason is empty or long.
        ArtifactError: there is no such artifact, or it cannot be champion: it is of another kind or outcome, altered,
            without the inputs that answering needs, or its model is not in MLflow.
    """
    reason = " ".join(reason.split())
    if not 0 < len(reason) <= LONGEST:
        raise ConfigError(f"--reason of {len(reason)} characters", f"why it is the champion, in 1 to {LONGEST}",
                          "say in a sentence why, for whoever asks later")
    study, registry = session.config.study.name, session.tracker.registry
    with guarded(session.workspace):  # so that it cannot be freed between this look and the alias that keeps it
        artifact = session.store.resolve(name)
        registry.crown(study, _role(session, artifact), artifact, reason)
    return champions(session)


def _role(session: Session, artifact: Artifact) -> str:
    """The role that an artifact can have.

    Raises:
        ArtifactError: it can have none.
    """
    role = ROLES.get(artifact.kind)
    if role is None:
        raise ArtifactError(f"{artifact.id} is of kind {artifact.kind}",
                            "a champion is an expert (kind expert) or a policy of stage 2 (kind rl)",
                            "name such an artifact; `eag-rl lineage` lists them all")
    if altered := session.store.verify(artifact):
        raise ArtifactError(f"{artifact.id} was altered: {', '.join(altered[:3])}", "a champion is as it was made",
                            "run its study again, which makes it anew")
    cohort = (champion_from(session.store, artifact).cohort if role == ROLES["rl"]
              else Artifact.from_json(session.store.manifest(artifact)["inputs"]["cohort"]))
    asked = session.config.cohort.outcome
    learned = session.store.manifest(cohort)["recipe"]["settings"]["cohort.outcome"]
    if learned != asked:
        raise ArtifactError(f"{artifact.id} was trained to predict {learned}, the study is about {asked}",
                            "a champion answers what its study asks", "name a model of this outcome, or the study of "
                            f"that one: --set cohort.outcome={learned}")
    return role


def _facts(crowned: Crowned | None) -> dict[str, Any] | None:
    if crowned is None:
        return None
    version = crowned.version
    return {"model": version.name, "version": version.number, "artifact": version.artifact, "since": crowned.since,
            "reason": crowned.reason}
