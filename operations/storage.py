"""The workspace's disk, as the doctor sees it: room, whether it takes writes, whether databases can lock there."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

from configs.schema import Config
from operations.checks import Check, Status

_GIB = 1 << 30
_LEAST_GIB, _GOOD_GIB = 1.0, 5.0


def disk(config: Config) -> Iterator[Check]:
    """Free space, a write with fsync, and an SQLite transaction in the workspace (or where it will be made)."""
    workspace = Path(config.paths.workspace).expanduser().resolve()
    place = next(folder for folder in (workspace, *workspace.parents) if folder.exists())
    yield _room(workspace, place)
    yield _writes(workspace, place)


def _room(workspace: Path, place: Path) -> Check:
    free = shutil.disk_usage(place).free / _GIB
    status: Status = "ok" if free >= _GOOD_GIB else "warn" if free >= _LEAST_GIB else "fail"
    return Check("disk", status, f"{free:.1f} GiB free for {workspace}",
                 "" if status == "ok" else f"free some space (a study takes about {_GOOD_GIB:.0f} GiB), or set "
                                           "paths.workspace to another disk")


def _writes(workspace: Path, place: Path) -> Check:
    try:
        with tempfile.TemporaryDirectory(prefix=".eag-rl-doctor-", dir=place) as folder:
            with (Path(folder) / "probe").open("wb") as stream:
                stream.write(b"\0" * 65536)
                stream.flush()
                os.fsync(stream.fileno())
            _transaction(Path(folder) / "probe.db")
    except sqlite3.Error as error:
        return Check("workspace", "fail", f"SQLite does not work in {place}: {error}",
                     "set paths.workspace to a local disk (network folders often cannot lock)")
    except OSError as error:
        return Check("workspace", "fail", f"{place} cannot be written: {error.strerror or error}",
                     "mend its permissions or free some space, or set paths.workspace to another folder")
    return Check("workspace", "ok", f"{workspace} takes files and databases"
                 + ("" if place == workspace else " (it will be made)"))


def _transaction(path: Path) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE probe (number INTEGER)")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO probe VALUES (1)")
        connection.execute("COMMIT")
    finally:
        connection.close()
