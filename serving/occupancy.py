"""How many of a server's request slots are busy, sampled while something runs.

In: a client and a condition. Out: the mean share of busy slots over the samples taken while the condition held.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from statistics import fmean

from contracts.errors import ServerError
from serving.client import Client

EVERY_SECONDS = 1.0


@dataclass
class Occupancy:
    """Samples of busy slots.

    Args:
        slots: how many requests the server works on at once (serving.slots).
    """

    slots: int
    samples: list[int] = field(default_factory=list)

    @property
    def share(self) -> float | None:
        """Mean share of busy slots in [0, 1]; None without a sample."""
        return fmean(self.samples) / self.slots if self.samples else None


@asynccontextmanager
async def watch(client: Client, slots: int, when: Callable[[], bool],
                every: float = EVERY_SECONDS) -> AsyncIterator[Occupancy]:
    """Samples the server's busy slots in the background, every `every` seconds, as long as `when()` is true."""
    occupancy = Occupancy(slots)
    sampling = asyncio.ensure_future(_sample(client, occupancy, when, every))
    try:
        yield occupancy
    finally:
        sampling.cancel()
        with suppress(asyncio.CancelledError):
            await sampling


async def _sample(client: Client, occupancy: Occupancy, when: Callable[[], bool], every: float) -> None:
    while True:
        with suppress(ServerError):  # a server that is being restarted has no slots to count
            busy = await client.slots_busy()
            if when():
                occupancy.samples.append(busy)
        await asyncio.sleep(every)
