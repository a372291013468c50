"""Which artifacts answer for a patient: the champion, one policy with the expert, cohort and model behind it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.errors import ArtifactError
from lineage.artifact import Artifact, content_digest
from lineage.leases import guarded, leased
from lineage.store import Store
from tasks.session import Session

STYLE = "decomposition"  # how a policy of stage 2 was taught to answer


@dataclass(frozen=True)
class Champion:
    """The artifacts of one answering policy.

    Attributes:
        cohort: whose catalogue, training split and window count. expert: the model whose attention guides.
        base: the language model. policy: its adapter.
    """

    cohort: Artifact
    expert: Artifact
    base: Artifact
    policy: Artifact

    @property
    def artifacts(self) -> dict[str, Artifact]:
        """Role to artifact."""
        return {"policy": self.policy, "expert": self.expert, "base": self.base, "cohort": self.cohort}

    @property
    def lineage(self) -> str:
        """One id for everything that an answer comes from: digest over the content of all four."""
        digest = content_digest({role: artifact.sha256 for role, artifact in self.artifacts.items()})
        return f"champion-{digest[:12]}"


def champion_of(session: Session) -> Champion:
    """The policy that MLflow's registry calls the study's champion, with what it was made from; as long as none was
    crowned, the study's last policy of stage 1 + 2.

    Raises:
        ArtifactError: the study is not finished in this workspace, or the champion is no longer in it.
    """
    return champion_from(session.store, _policy(session))


@contextmanager
def held_champion(session: Session) -> Iterator[Champion]:
    """The same, and a lease on it for as long as the block lasts: `eag-rl gc` frees nothing of it meanwhile.

    Raises:
        ArtifactError: as `champion_of`.
    """
    with leased(session.workspace, session.config.study.name, makes=False) as lease:
        policy = _policy(session)  # asks MLflow, so not under the guard, where studies would wait for it
        with guarded(session.workspace):
            champion = champion_from(session.store, policy)
            lease.take(*(artifact.id for artifact in champion.artifacts.values()))
        yield champion


def champion_from(store: Store, policy: Artifact) -> Champion:
    """A policy of stage 2 with the cohort, the expert and the model that it was made from, whatever was made since.

    Raises:
        ArtifactError: the artifact has no such inputs, or one of them is gone.
    """
    patients = _input(store, policy, "patients")
    expert = _input(store, _input(store, patients, "readings"), "expert")
    return Champion(_input(store, patients, "cohort"), expert, _input(store, policy, "base"), policy)


def card_of(session: Session, champion: Champion) -> dict[str, Any]:
    """What may be said of the champion to everybody who may ask it; no row of a patient, no path."""
    store = session.store
    base = _json(store.folder(champion.base) / "model.json")
    meta = _json(store.folder(champion.cohort) / "meta.json")
    return {"model": champion.policy.id, "lineage": champion.lineage, "study": session.config.study.name,
            "base_model": Path(str(base["name"])).name, "catalogue": meta["catalogue"],
            "outcome": session.config.cohort.outcome, "cohort_source": meta.get("source", ""), "style": STYLE,
            "artifacts": {role: {"id": one.id, "sha256": one.sha256} for role, one in champion.artifacts.items()}}


def _policy(session: Session) -> Artifact:
    study = session.config.study.name
    crowned = session.tracker.registry.champion(study, "policy")
    return session.store.latest(study, "rl") if crowned is None else session.store.resolve(crowned.artifact)


def _input(store: Store, artifact: Artifact, role: str) -> Artifact:
    inputs = store.manifest(artifact)["inputs"]
    if role not in inputs:
        raise ArtifactError(f"{artifact.id} was made without {role!r}", "a policy of stage 2 (kind rl)",
                            "name such a policy; `eag-rl lineage` lists all artifacts")
    return Artifact.from_json(inputs[role])


def _json(path: Path) -> Mapping[str, Any]:
    values: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values
