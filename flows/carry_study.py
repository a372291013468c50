"""`eag-rl export` and `eag-rl import`: a study out of one workspace and its MLflow, into another."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from contracts.errors import ArtifactError, ConfigError
from lineage import bundle
from lineage.artifact import Artifact
from lineage.carried_runs import carried
from lineage.portable import guard
from lineage.store import Store, read_json
from lineage.tracking_registry import ROLES
from tasks.session import Session

_NAMES, _TEXTS = ("stay_id", "patient_id"), ("evidence", "text", "completion", "trajectory", "prompt", "answer")


def write_bundle(session: Session, study: str, out: Path) -> dict[str, Any]:
    """Writes a study's reports, numbers, models, manifests and runs to one file.

    Returns:
        study, file, and how many artifacts, files, runs and bytes it holds.

    Raises:
        ConfigError: the file's name does not end in .tar.gz, or its folder is not there.
        ArtifactError: the workspace knows no such study, or an artifact of it was altered.
        DataError: a file that is to go holds something of a patient.
    """
    from lineage.tracking_runs import outgoing

    store = session.store
    if not out.name.endswith(".tar.gz"):
        raise ConfigError(f"--out {out}", "a bundle is a gzipped tar", "name it *.tar.gz")
    if not out.parent.is_dir():
        raise ConfigError(f"--out {out}", "its folder is there", f"make {out.parent}, or name another place")
    labels = store.labels(study)
    if not labels:
        raise ArtifactError(f"no finished study {study!r} in {store.workspace}", "a study of the workspace's ledger",
                            "run it first, or name its workspace with --set paths.workspace=")
    entries = dict(_entries(store, labels))
    runs = outgoing(session.tracker, (str(entry.get("tracking_run", "")) for entry in entries.values()))
    members = {bundle.RUNS: json.dumps(runs, sort_keys=True).encode(), **dict(bundle.collect(store, entries))}
    facts = {"study": study, "labels": {label: artifact.id for label, artifact in labels.items()}}
    bundle.write(out, facts, members, guard(*_of_patients(store, entries)))
    return {"study": study, "file": str(out), "artifacts": len(entries), "files": len(members), "runs": len(runs),
            "bytes": out.stat().st_size}


def read_bundle(session: Session, file: Path) -> dict[str, Any]:
    """Unpacks a bundle to <workspace>/imported and writes its runs and models to this MLflow, as far as they are new.

    Returns:
        study, folder, and how many files, runs and new runs it brought.

    Raises:
        ArtifactError, MissingFileError: it is no unaltered bundle.
        StorageError: the workspace takes no files.
    """
    from lineage.tracking import Tracker
    from lineage.tracking_runs import incoming

    session.store.require_writable()
    contents, folder = bundle.unpack(file, session.workspace / "imported")
    runs = carried((folder / bundle.RUNS).read_text(encoding="utf-8"))
    tracker = Tracker(session.workspace, contents["study"])
    new = incoming(tracker, runs, folder, folder.name)
    for label, name in sorted(contents["labels"].items()):
        manifest = folder / "artifacts" / name / bundle.MANIFEST
        if label in ROLES and manifest.is_file():
            tracker.register(Artifact.from_json(read_json(manifest)["artifact"]))
    return {"study": contents["study"], "folder": str(folder), "files": len(contents["members"]), "runs": len(runs),
            "new_runs": len(new)}


def _entries(store: Store, labels: Mapping[str, Artifact]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Id and manifest of the labelled artifacts and of all that they were made from, none of them altered."""
    waiting, seen = list(labels.values()), set()
    while waiting:
        artifact = waiting.pop()
        if artifact.id in seen:
            continue
        seen.add(artifact.id)
        if wrong := store.verify(artifact):
            raise ArtifactError(f"{artifact.id} was altered ({', '.join(wrong[:3])})", "what leaves fits its digests",
                                "run the study again: it makes that artifact anew")
        entry = store.manifest(artifact)
        waiting += [Artifact.from_json(source) for source in entry["inputs"].values()]
        yield artifact.id, entry


def _of_patients(store: Store, entries: Mapping[str, Mapping[str, Any]]) -> tuple[set[str], list[str]]:
    """(identifiers, texts) that stand in any table of the artifacts: what the guard looks for."""
    names: set[str] = set()
    texts: list[str] = []
    for entry in entries.values():
        for path in sorted((store.workspace / entry["artifact"]["uri"]).rglob("*.parquet")):
            columns = pl.read_parquet_schema(path)
            for column in columns:
                if column in _NAMES:
                    names |= set(pl.read_parquet(path, columns=[column])[column].cast(pl.String).drop_nulls())
                elif column in _TEXTS and columns[column] == pl.String:
                    texts += pl.read_parquet(path, columns=[column])[column].drop_nulls().to_list()
    return names, texts
