"""What running studies, and who answers from a champion, use: each holds a lease, a locked file with the names of its
artifacts, as long as it lives.

The lock (flock) ends with the process, so a lease that nobody holds any more is stale and is removed when it is seen.
`guarded` keeps the removal of artifacts and the taking of one apart: a study takes an artifact wholly before or wholly
after such a removal, never during it.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from lineage.store import storage_errors, write_json


@dataclass
class Lease:
    """The names (kind and recipe, as folders are called) that one process uses or is about to make.

    Attributes:
        makes: a study runs, which also needs its ledger and caches; False: these artifacts are only read.
        path: of its file; None once it has ended.
    """

    study: str
    pid: int
    names: set[str] = field(default_factory=set)
    makes: bool = True
    path: Path | None = None

    def take(self, *names: str) -> None:
        """Adds names; on disk when this returns."""
        self.names.update(names)
        if self.path is not None:
            write_json(self.path, {"study": self.study, "pid": self.pid, "names": sorted(self.names),
                                   "makes": self.makes})


@contextmanager
def leased(workspace: Path, study: str, makes: bool = True) -> Iterator[Lease]:
    """A lease for as long as the block lasts."""
    path = workspace / "leases" / f"{study}-{os.getpid()}-{uuid.uuid4().hex[:8]}.json"
    with storage_errors(path):
        lock = FileLock(path.with_suffix(".lock"))
        with guarded(workspace):  # nobody may take the new lease for a stale one before it is locked
            lock.acquire()
        lease = Lease(study, os.getpid(), makes=makes, path=path)
        lease.take()
    try:
        yield lease
    finally:
        lease.path = None
        path.unlink(missing_ok=True)
        lock.release()
        path.with_suffix(".lock").unlink(missing_ok=True)


@contextmanager
def guarded(workspace: Path) -> Iterator[None]:
    """Held for the moment of taking an artifact, and during a removal of artifacts."""
    with storage_errors(workspace / "locks"):
        lock = FileLock(workspace / "locks" / "guard.lock")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def running(workspace: Path) -> list[Lease]:
    """The leases whose processes live; the stale ones are removed. Call it under `guarded`."""
    found = []
    for locked in sorted((workspace / "leases").glob("*.lock")):
        path = locked.with_suffix(".json")
        try:
            with FileLock(locked, timeout=0):
                path.unlink(missing_ok=True)
                locked.unlink(missing_ok=True)
        except Timeout:
            found.append(_read(path))
    return found


def _read(path: Path) -> Lease:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:  # it begins or ends at this moment
        return Lease(path.stem.rsplit("-", 2)[0], int(path.stem.rsplit("-", 2)[1]))
    return Lease(str(values["study"]), int(values["pid"]), set(values["names"]), bool(values.get("makes", True)))
