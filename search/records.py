"""Finished searches on disk: one JSON file a patient, there wholly or not at all.

In: a `Grown` record and the key of what it was made from. Out: a file named by a hash of the stay, written aside,
flushed to the disk and renamed. A file that cannot be read, or was made from something else, counts as not there.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from contracts.errors import StorageError
from search.harvest import Grown, Trajectory

FORMAT = 1


def record_path(folder: Path, stay_id: str) -> Path:
    """Where the search of this stay lies; the name is a hash, since identifiers may hold any character."""
    return folder / f"{hashlib.sha256(stay_id.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}.json"


def digest(value: Any) -> str:
    """A digest of JSON-ready values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def save(path: Path, grown: Grown, key: str) -> None:
    """Writes the record so that after any crash either the whole file is there or none.

    Raises:
        StorageError: the disk is full or not writable.
    """
    text = json.dumps({"format": FORMAT, "key": key, **asdict(grown)}, ensure_ascii=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with aside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise StorageError(f"cannot write {path}: {error.strerror or error}", "the folder is writable and has room",
                           "free disk space or correct paths.workspace, then run again: finished ones stay") from error


def load(path: Path, key: str) -> Grown | None:
    """The record at `path`; None if there is none, it cannot be read, or it was made from something else."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw.pop("format") != FORMAT or raw.pop("key") != key:
            return None
        trajectories = tuple(Trajectory(**{**one, "features": tuple(one["features"])}) for one in raw["trajectories"])
        return Grown(**{**raw, "trajectories": trajectories})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def sweep(folder: Path) -> None:
    """Creates the folder and removes what a killed run left half-written.

    Raises:
        StorageError: the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot use {folder}: {error.strerror or error}", "it is a folder that can be written",
                           "correct paths.workspace or its permissions") from error


def _flush_folder(folder: Path) -> None:
    """Makes the rename itself last."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
