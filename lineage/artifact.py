"""The one thing that stages exchange: an `Artifact`, a finished folder with kind, id and digest."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Artifact:
    """A finished folder in the store.

    Attributes:
        kind: what it is ("cohort", "expert", "trajectories", ...).
        id: kind and the first 12 hex digits of its recipe's key.
        uri: folder relative to the workspace.
        sha256: digest of its content: every file's relative path and sha256.
        recipe: key of the recipe that made it.
    """

    kind: str
    id: str
    uri: str
    sha256: str
    recipe: str

    def to_json(self) -> dict[str, str]:
        """Plain values, the only form that travels through Prefect."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Artifact:
        """The inverse of `to_json`; further keys are ignored."""
        return cls(**{name: str(values[name]) for name in cls.__dataclass_fields__})


def file_digest(path: Path) -> str:
    """sha256 of one file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def remembered_digest(path: Path, state: str, memo: Path) -> str:
    """sha256 of a large file; worked out again only where its state is another.

    Args:
        state: what is another once the file is (place, size, time of change).
        memo: JSON file that remembers.
    """
    try:
        known = json.loads(memo.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    if state not in known:
        known[state] = file_digest(path)
        memo.parent.mkdir(parents=True, exist_ok=True)
        aside = memo.with_name(f".{memo.name}.{os.getpid()}.tmp")
        aside.write_text(json.dumps(known, indent=1), encoding="utf-8")
        aside.replace(memo)
    return str(known[state])


def remembered_digests(folder: Path, memo: Path, suffixes: Collection[str]) -> dict[str, str]:
    """As `folder_digests`, of large files; each is read again only where it is another (place, size, time of change).

    Args:
        suffixes: of the files that count; what lies in folders with a dot (.git, .cache) never does.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix in suffixes and path.is_file()
                   and not any(part.startswith(".") for part in path.relative_to(folder).parts))
    return {path.relative_to(folder).as_posix(): remembered_digest(path, _state(path), memo) for path in files}


def _state(path: Path) -> str:
    status = path.stat()
    return f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}"


def folder_digests(folder: Path, skip: Iterable[str] = ()) -> dict[str, str]:
    """Relative path to sha256 of each file under `folder`, sorted by path."""
    passed = set(skip)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in files}
    return {name: file_digest(path) for name, path in names.items() if name not in passed}


def content_digest(files: Mapping[str, str]) -> str:
    """One digest for a whole folder, from `folder_digests`."""
    lines = "".join(f"{name}\0{digest}\n" for name, digest in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()
