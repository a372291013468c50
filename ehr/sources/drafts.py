"""A folder of the cache, on this machine or in a store, that is there wholly or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from filelock import FileLock

from contracts.errors import StorageError
from ehr.sources.places import is_local


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Nobody else works on `folder` meanwhile; another process waits until this one is done, or is no more.

    A store has no lock: what lies there is named by its content, so two at once write the same bytes.
    """
    if not is_local(folder):
        yield
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f".{folder.name}.lock"))
        lock.acquire()
    except OSError as error:
        raise _not_writable(folder, error) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def drafted(folder: Path, last: str | None = None) -> Iterator[Path]:
    """Gives an empty folder of this machine to write to; it takes the place of `folder` if the block ends well.

    Until then `folder` stays as it was; after an error nothing of the draft is left. Hold `locked` where others may
    write.

    Args:
        folder: of this machine, or of a store.
        last: the file without which `folder` does not count; it goes to a store after all others.

    Raises:
        StorageError: the disk is full or not writable, or the store takes no file.
    """
    local = is_local(folder)
    draft = folder.with_name(f".{folder.name}.draft") if local else Path(mkdtemp(prefix="eag-rl-"))
    try:
        if local:
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
        yield draft
        if local:
            shutil.rmtree(folder, ignore_errors=True)
            draft.rename(folder)
        else:
            _send(draft, folder, last)
    except OSError as error:
        raise _not_writable(folder, error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def discard(folder: Path) -> None:
    """Removes a folder of the cache, if it is there, while nobody else works on it."""
    with locked(folder):
        if is_local(folder):
            shutil.rmtree(folder, ignore_errors=True)
        elif folder.exists():
            folder.rmdir(recursive=True)  # type: ignore[call-arg]  # of a UPath


def _send(draft: Path, folder: Path, last: str | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(draft.iterdir(), key=lambda one: (one.name == last, one.name)):
        with file.open("rb") as ours, (folder / file.name).open("wb") as theirs:
            shutil.copyfileobj(ours, theirs, 1 << 20)


def _not_writable(folder: Path, error: OSError) -> StorageError:
    return StorageError(f"cannot write {folder}: {error}", "a writable folder with free space",
                        "free space, or change paths.workspace")
