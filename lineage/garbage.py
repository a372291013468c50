"""What no kept study needs: found first as a list of folders and files with sizes, then removed.

Kept is what a kept study's ledger names with all it was made from, what a champion was made from, what the studies of
the next extracts are compared with, and what is held in leases. Everything happens under the guard that studies take an
artifact under, and each artifact and draft goes under the lock of its recipe; a lock that somebody holds protects what
it is of.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from contracts.errors import ArtifactError
from lineage.artifact import Artifact
from lineage.leases import Lease
from lineage.store import MANIFEST, OWNER, Store, read_json, storage_errors

_DAY = 86400.0
_TABLES = ("chartevents-", "labevents-")


@dataclass(frozen=True)
class Waste:
    """Something that nobody needs: its kind (artifact, scratch, result, cache, ...), place, size, and lock if any."""

    kind: str
    path: Path
    bytes: int
    lock: str = ""

    @property
    def name(self) -> str:
        """Its file name."""
        return self.path.name


def studies(store: Store) -> list[str]:
    """Names of the studies that the ledger knows."""
    return sorted(path.name for path in (store.workspace / "ledger").iterdir() if path.is_dir())


def needed(store: Store, kept: Iterable[str], leases: Iterable[Lease], champions: Iterable[str]) -> set[str]:
    """Names of the artifacts that must stay: those of studies and leases and those given, with all they were made from.

    Args:
        champions: the champions', and what the next studies are compared with.
    """
    leases = list(leases)
    roots = {name for lease in leases for name in lease.names} | set(champions)
    for study in {*kept, *(lease.study for lease in leases if lease.makes)}:
        roots |= {artifact.id for artifact in store.labels(study).values()}
    waiting, found = list(roots), set(roots)
    known = {entry["artifact"]["id"]: entry for entry in store.manifests()}
    while waiting:
        entry = known.get(waiting.pop())
        sources = {source["id"] for source in entry["inputs"].values()} if entry else set()
        waiting += sources - found
        found |= sources
    return found


def waste(store: Store, stay: Collection[str], kept: Collection[str], older_than: float = 0.0, idle: bool = True
          ) -> list[Waste]:
    """Everything in the workspace that is not needed.

    Args:
        stay: names of artifacts, from `needed`.
        kept: studies whose unfinished work stays.
        older_than: only what was last changed so many days ago.
        idle: no study runs; else caches stay whole, since what is being read now has no artifact yet.
    """
    limit = time.time() - older_than * _DAY
    found = [*_artifacts(store, stay), *_drafts(store, stay, kept), *(_caches(store, stay) if idle else ())]
    found += [*_results(store, stay, {one.name for one in found if one.kind == "artifact"})]
    found += [Waste("ledger", folder, size(folder)) for folder in sorted((store.workspace / "ledger").iterdir())
              if folder.name not in kept]
    return [one for one in found if older_than == 0.0 or newest(one.path) < limit]


def remove(store: Store, one: Waste) -> bool:
    """Removes it, under its lock if it has one; False where somebody holds that lock, or it is gone already."""
    if not one.lock:
        return _remove(one.path)
    path = store.workspace / "locks" / f"{one.lock}.lock"
    with storage_errors(path):
        try:
            with FileLock(path, timeout=0):
                gone = _remove(one.path)
                if not (store.workspace / "drafts" / one.lock).exists():
                    path.unlink(missing_ok=True)  # whoever waits for it sees that and makes a new one
                return gone
        except Timeout:
            return False


def size(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    return path.lstat().st_size if not path.is_dir() else sum(
        one.lstat().st_size for one in path.rglob("*") if not one.is_dir())


def newest(path: Path) -> float:
    """When a file, or any file of a folder, was last changed."""
    return max(one.lstat().st_mtime for one in (path, *(path.rglob("*") if path.is_dir() else ())))


def _remove(path: Path) -> bool:
    with storage_errors(path):
        if not path.exists():
            return False
        if path.is_dir() and not path.is_symlink():
            (path / MANIFEST).unlink(missing_ok=True)  # first: half an artifact must not look like a whole one
            shutil.rmtree(path)
        else:
            path.unlink()
        return True


def _artifacts(store: Store, stay: Collection[str]) -> Iterator[Waste]:
    for folder in sorted((store.workspace / "artifacts").glob("*/*")):
        if folder.name not in stay:
            yield Waste("artifact", folder, size(folder), folder.name)


def _drafts(store: Store, stay: Collection[str], kept: Collection[str]) -> Iterator[Waste]:
    """Drafts whose artifact is finished, and unfinished ones of studies that are not kept."""
    for folder in sorted((store.workspace / "drafts").iterdir()):
        finished = any((store.workspace / "artifacts").glob(f"*/{folder.name}/{MANIFEST}"))
        if finished or not (folder.name in stay or _study(folder) in kept):
            yield Waste("scratch", folder, size(folder), folder.name)


def _study(draft: Path) -> str:
    try:
        return str(read_json(draft / OWNER)["study"])
    except (OSError, ArtifactError, KeyError):
        return ""


def _results(store: Store, stay: Collection[str], going: Collection[str]) -> Iterator[Waste]:
    """Prefect's results, named by the key of a recipe, whose artifact is not there or goes."""
    left = {folder.name.rpartition("-")[2] for folder in (store.workspace / "artifacts").glob("*/*")
            if folder.name not in going} | {name.rpartition("-")[2] for name in stay}
    for path in sorted((store.workspace / "prefect" / "storage").glob("?" * 64)):
        if path.is_file() and path.name[:12] not in left:
            yield Waste("result", path, size(path))


def _caches(store: Store, stay: Collection[str]) -> Iterator[Waste]:
    """Parsed tables of files that no cohort of the list was read from, and prepared models that no `base` names."""
    cohorts, models = set(), set()
    for entry in store.manifests():
        artifact = Artifact.from_json(entry["artifact"])
        if artifact.id not in stay:
            continue
        if artifact.kind == "cohort":
            cohorts |= {digest[:16] for digest in entry.get("sources", {}).values()}
        if artifact.kind == "base":
            models.add(Path(read_json(store.folder(artifact) / "model.json")["folder"]).resolve())
    tables = [folder for folder in sorted((store.workspace / "cache").glob("*")) if folder.is_dir()]
    for folder in tables:
        unread = folder.name.startswith(_TABLES) and folder.name.split("-")[1] not in cohorts
        if unread or not cohorts or folder.name.startswith("."):  # a dot: left by a process that was killed
            yield Waste("cache", folder, size(folder))
    for folder in sorted((store.workspace / "models").glob("*")):
        if folder.is_dir() and not any(model.is_relative_to(folder.resolve()) for model in models):
            yield Waste("model", folder, size(folder))
