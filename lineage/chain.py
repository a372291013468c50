"""The chain behind an artifact: from it back to the sha256 of the source files, as nested plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from contracts.errors import ArtifactError
from lineage.artifact import Artifact, file_digest
from lineage.store import Store

Node = dict[str, Any]
_FACTS = ("sources", "commit", "versions", "metrics", "study", "tracking_run", "started", "finished")


def chain(store: Store, artifact: Artifact, verify: bool = False) -> Node:
    """An artifact with all it was made from, recursively; what is used in several places is one and the same object.

    Args:
        verify: also recompute every digest; `altered` then says what no longer fits, and nothing is raised for what is
            missing: that is told in the same place.

    Returns:
        {"id", "kind", "sha256", "uri", "stage", "settings", "sources", "commit", "versions", "metrics", "study",
        "tracking_run", "started", "finished", "inputs": {role: the same}} and "altered" where asked for.

    Raises:
        ArtifactError: a link of the chain is missing, where nothing is verified.
    """
    return _node(store, artifact, verify, {})


def chains(store: Store, artifacts: Mapping[str, Artifact]) -> dict[str, Node]:
    """The chain of each artifact, by its role: what several of them were made from is read once, and one object.

    Raises:
        ArtifactError: a link of a chain is missing.
    """
    known: dict[tuple[str, str], Node] = {}
    return {role: _node(store, artifact, False, known) for role, artifact in artifacts.items()}


def _node(store: Store, artifact: Artifact, verify: bool, known: dict[tuple[str, str], Node]) -> Node:
    place = (artifact.id, artifact.sha256)
    if place not in known:
        known[place] = _read(store, artifact, verify, known)
    return known[place]


def _read(store: Store, artifact: Artifact, verify: bool, known: dict[tuple[str, str], Node]) -> Node:
    try:
        entry = store.manifest(artifact)
    except ArtifactError as error:
        if not verify:
            raise
        return {**{name: getattr(artifact, name) for name in ("id", "kind", "sha256", "uri")}, "stage": artifact.kind,
                "settings": {}, **dict.fromkeys(_FACTS), "altered": [error.value], "inputs": {}}
    node = {**{name: getattr(artifact, name) for name in ("id", "kind", "sha256", "uri")},
            "stage": entry["recipe"]["stage"], "settings": entry["recipe"]["settings"],
            **{name: entry.get(name) for name in _FACTS}}
    if verify:
        replaced = entry["artifact"]["sha256"] != artifact.sha256
        node["altered"] = ["it was replaced after it was used here"] if replaced else store.verify(artifact)
    node["inputs"] = {role: _node(store, Artifact.from_json(source), verify, known)
                      for role, source in entry["inputs"].items()}
    return node


def members(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Each node of a chain once, what was made first first."""
    yield from _members(node, set())


def _members(node: Mapping[str, Any], seen: set[int]) -> Iterator[Mapping[str, Any]]:
    if id(node) in seen:
        return
    seen.add(id(node))
    for source in node["inputs"].values():
        yield from _members(source, seen)
    yield node


def source_files(node: Mapping[str, Any]) -> dict[str, str]:
    """Every source file that a chain reaches, with its sha256."""
    found: dict[str, str] = {}
    for one in members(node):
        found |= one["sources"] or {}
    return found


def links(node: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(artifact, role, the artifact it was made from) for each link of a chain."""
    for one in members(node):
        for role, source in one["inputs"].items():
            yield one["id"], role, source["id"]


def altered(node: Mapping[str, Any]) -> dict[str, list[str]]:
    """Of a verified chain: each artifact that no longer fits, and what of it."""
    return {one["id"]: one["altered"] for one in members(node) if one.get("altered")}


def check_sources(node: Mapping[str, Any], places: Mapping[str, Path]) -> tuple[list[str], list[str]]:
    """(source files whose content is not what was read, those that cannot be reached now).

    Of a name that stands for several files (the cohorts of two extracts) one can lie here; the others are out of reach.

    Args:
        places: where source files lie now, by name.
    """
    read: dict[str, set[str]] = {}
    for one in members(node):
        for name, digest in (one["sources"] or {}).items():
            read.setdefault(name, set()).add(digest)
    here = {name: file_digest(places[name]) for name in read if name in places and places[name].is_file()}
    return ([name for name, digest in here.items() if digest not in read[name]],
            [name for name, digests in read.items() if name not in here or len(digests) > 1])
