"""The chain behind an artifact: from it back to the sha256 of the source files, as nested plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lineage.artifact import Artifact
from lineage.store import Store


def chain(store: Store, artifact: Artifact, verify: bool = False) -> dict[str, Any]:
    """An artifact with all it was made from, recursively.

    Args:
        verify: also recompute every digest; `altered` then names the files that no longer fit.

    Returns:
        {"id", "kind", "sha256", "uri", "stage", "settings", "sources", "commit", "versions", "metrics", "study",
        "tracking_run", "started", "finished", "inputs": {role: the same}} and "altered" where asked for.

    Raises:
        ArtifactError: a link of the chain is missing.
    """
    entry = store.manifest(artifact)
    node = {**{name: entry["artifact"][name] for name in ("id", "kind", "sha256", "uri")},
            "stage": entry["recipe"]["stage"], "settings": entry["recipe"]["settings"],
            **{name: entry.get(name) for name in ("sources", "commit", "versions", "metrics", "study", "tracking_run",
                                                  "started", "finished")}}
    if verify:
        node["altered"] = store.verify(artifact)
    node["inputs"] = {role: chain(store, Artifact.from_json(source), verify)
                      for role, source in entry["inputs"].items()}
    return node


def source_files(node: Mapping[str, Any]) -> dict[str, str]:
    """Every source file that a chain reaches, with its sha256."""
    found = dict(node["sources"] or {})
    for source in node["inputs"].values():
        found |= source_files(source)
    return found


def links(node: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(artifact, role, the artifact it was made from) for each link of a chain."""
    for role, source in node["inputs"].items():
        yield node["id"], role, source["id"]
        yield from links(source)
