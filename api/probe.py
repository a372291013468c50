"""Whether the model answers, asked about once a second however many want to know: readiness is open to everybody."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

SECONDS = 1.0


class Probe:
    """An answer that holds for `SECONDS`; who comes while it is being found waits for it and shares it.

    Args:
        ask: finds the answer.
        clock: by which it ages [s].
    """

    def __init__(self, ask: Callable[[], Awaitable[bool]], clock: Callable[[], float] = time.monotonic) -> None:
        self._ask, self._clock = ask, clock
        self._lock = asyncio.Lock()
        self._found, self._until = False, float("-inf")

    async def __call__(self) -> bool:
        """The answer, at most `SECONDS` old."""
        async with self._lock:
            if self._clock() >= self._until:
                self._found = await self._ask()
                self._until = self._clock() + SECONDS
            return self._found
