"""Waiting for what other processes do, up to a time."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(what: Callable[[], bool], seconds: float = 90.0) -> bool:
    """Whether `what` held within the time; asked a few times a second, and once more at its end."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if what():
            return True
        time.sleep(0.2)
    return what()
