"""How much may be asked: a bucket of requests for each token, and places for what runs at once. Clocks come in."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from api.problems import RefusedError


class Bucket:
    """Holds up to `burst` requests and is refilled at `rate` a second.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._left, self._since = float(burst), clock()

    def take(self) -> float:
        """Takes one request: 0 if there was one, else the seconds until there is."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._since) * self._rate)
        self._since = now
        if self._left < 1.0:
            return (1.0 - self._left) / self._rate
        self._left -= 1.0
        return 0.0


class Places:
    """At most `count` predictions waiting or running; who finds none is turned away at once."""

    def __init__(self, count: int) -> None:
        self.count, self.taken = count, 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Holds a place.

        Raises:
            RefusedError: none is free (503).
        """
        if self.taken >= self.count:
            raise RefusedError(503, f"{self.taken} predictions are waiting or running", f"at most {self.count} "
                               "(api.queue)", "try again in a moment", {"Retry-After": "2"})
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1
