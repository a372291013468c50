"""`eag-rl lineage`: the chain of an artifact or of one prediction, verified where asked for, in one of three forms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contracts.errors import ArtifactError, DataError
from lineage.artifact import Artifact
from lineage.chain import Node, altered, chain, check_sources, members
from lineage.prediction import prediction
from tasks.origins import cohort_files, model_files
from tasks.session import Session

OTHER = "is another file now"


@dataclass(frozen=True)
class Trace:
    """A chain, and of a verified one what does not fit.

    Attributes:
        altered: artifact to what of it; broken: source file to what is wrong with it; unreached: those out of reach.
    """

    node: Node
    altered: Mapping[str, list[str]] = field(default_factory=dict)
    broken: Mapping[str, str] = field(default_factory=dict)
    unreached: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether nothing was found altered."""
        return not self.altered and not self.broken


def trace(session: Session, name: str | None, verify: bool, stay: str | None = None, arm: str | None = None) -> Trace:
    """The chain of an artifact, or of one stay's prediction by one arm.

    Args:
        name: id of the artifact, its beginning, or a kind (its newest); none: the report of the study.

    Raises:
        ArtifactError: there is no such artifact, arm or judged stay.
    """
    store = session.store
    artifact = store.resolve(name) if name else store.latest(session.config.study.name, "report")
    node = chain(store, artifact, verify)
    if stay is not None and arm is not None:
        node = prediction(store, node, arm, stay)
    if not verify:
        return Trace(node)
    broken, unreached = check_sources(node, _places(session, node))
    return Trace(node, altered(node), dict.fromkeys(broken, OTHER), tuple(unreached))


def _places(session: Session, node: Node) -> dict[str, Path]:
    """Where the chain's source files lie; those of a data folder or model that is not here are left out."""
    places: dict[str, Path] = {}
    for one in members(node):
        if not one["sources"]:
            continue
        try:
            if one["stage"] == "base":
                artifact = Artifact(one["kind"], one["id"], one["uri"], one["sha256"], "")
                places |= model_files(session, artifact)
            elif one["stage"] == "cohort":
                places |= cohort_files(session)
        except (ArtifactError, DataError):
            continue  # they count as out of reach, and the page and the command say so
    return places


def as_json(found: Trace, files: Mapping[str, str]) -> dict[str, Any]:
    """The chain with what does not fit, ready for JSON."""
    return {**found.node, "source_files": dict(files), "altered_artifacts": dict(found.altered),
            "altered_sources": dict(found.broken), "unreached_sources": list(found.unreached)}
