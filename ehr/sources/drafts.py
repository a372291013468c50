"""A folder of the cache that is there wholly or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contracts.errors import StorageError


@contextmanager
def drafted(folder: Path) -> Iterator[Path]:
    """Gives an empty folder beside `folder` to write to; it takes the place of `folder` if the block ends well.

    Until then `folder` stays as it was; after an error nothing of the draft is left.

    Raises:
        StorageError: the disk is full or not writable.
    """
    draft = folder.with_name(f".{folder.name}.draft")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        yield draft
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
    except OSError as error:
        raise StorageError(f"cannot write {folder}: {error}", "a writable folder with free space",
                           "free space, or change paths.workspace") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
