"""Where files lie: folders of this machine, or of a store that fsspec reaches (s3://, gs://, and the like).

A place of a store is a `UPath`: it has the methods of a `pathlib.Path` but is none, and what needs a true file is given
an open one here.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, cast

from upath import UPath


def place_of(name: str) -> Path:
    """The folder that a setting names; "s3://bucket/folder" needs the package of its protocol (s3fs, gcsfs, ...)."""
    if "://" not in name:
        return Path(name).expanduser()
    return cast(Path, UPath(name))


def is_local(place: Path) -> bool:
    """Is it a folder or file of this machine?"""
    return isinstance(place, Path)


def readable(file: Path) -> Any:
    """What Polars reads: the path, or the bytes of a small file of a store."""
    return file if is_local(file) else io.BytesIO(file.read_bytes())


def seekable(file: Path) -> Any:
    """What pyarrow reads: the path, or an open file of a store, of which only the parts needed are fetched."""
    return file if is_local(file) else file.open("rb")


def state_of(file: Path) -> str:
    """What is another once the file is: place, size and time of change, or what the store knows it by."""
    status = file.stat()
    if is_local(file):
        return f"{file.resolve()}|{status.st_size}|{status.st_mtime_ns}"
    fs: Any = file.fs  # type: ignore[attr-defined]
    return f"{file}|{status.st_size}|{fs.ukey(file.path)}"  # type: ignore[attr-defined]
