"""A stopwatch that outlives its process: seconds of work that may be killed and gone on with later."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Self

from lineage.store import write_json

EVERY_SECONDS = 5.0


class Stopwatch:
    """Wall seconds of a piece of work over all its lives; use as a context manager around each of them.

    While it runs it writes its reading to a file every few seconds, so that a kill costs no more than those.

    Args:
        path: the file; a reading that lies there already is gone on from.
        every: seconds between two writings.
    """

    def __init__(self, path: Path, every: float = EVERY_SECONDS) -> None:
        self.path, self.before, self._every = path, _reading(path), every
        self._started: float | None = None
        self._taken = 0.0
        self._ended = threading.Event()
        self._writer = threading.Thread(target=self._write_now_and_then, daemon=True, name="stopwatch")

    @property
    def seconds(self) -> float:
        """Seconds up to now, or up to the end of this life, those of former lives included."""
        running = 0.0 if self._started is None else time.monotonic() - self._started
        return self.before + self._taken + running

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        self._writer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._writer.join()
        self._taken, self._started = self.seconds - self.before, None
        self._write()

    def _write_now_and_then(self) -> None:
        while not self._ended.wait(self._every):
            try:
                self._write()
            except OSError:
                return  # the work itself meets the full disk, and says so

    def _write(self) -> None:
        write_json(self.path, {"seconds": round(self.seconds, 3)})


def _reading(path: Path) -> float:
    return float(json.loads(path.read_text(encoding="utf-8"))["seconds"]) if path.is_file() else 0.0
