"""Busy slots are sampled while a condition holds, and a server that is away for a moment does not end the sampling."""

import asyncio

import pytest

from contracts.errors import ServerError
from serving.occupancy import watch


class _Client:
    """Answers with the given numbers one after the other, the last for ever; None: the server is away."""

    def __init__(self, *busy):
        self.busy, self.asked = list(busy), 0

    async def slots_busy(self):
        self.asked += 1
        number = self.busy.pop(0) if len(self.busy) > 1 else self.busy[0]
        if number is None:
            raise ServerError("away", "a server", "wait")
        return number


async def _asked(client, times):
    while client.asked < times:
        await asyncio.sleep(0.001)


async def test_the_share_is_the_mean_over_all_samples():
    client = _Client(4, 8, 0)
    async with watch(client, 8, lambda: client.asked <= 2, every=0.001) as occupancy:
        await _asked(client, 4)
    assert occupancy.samples == [4, 8]
    assert occupancy.share == pytest.approx(0.75)


async def test_without_a_sample_there_is_no_share():
    client = _Client(4)
    async with watch(client, 8, lambda: False, every=0.001) as occupancy:
        await _asked(client, 3)
    assert occupancy.share is None


async def test_a_server_that_is_away_is_asked_again():
    client = _Client(None, None, 6)
    async with watch(client, 6, lambda: True, every=0.001) as occupancy:
        await _asked(client, 4)
    assert occupancy.share == 1.0


async def test_the_sampling_ends_with_the_block():
    client = _Client(1)
    async with watch(client, 1, lambda: True, every=0.001):
        await _asked(client, 2)
    asked = client.asked
    await asyncio.sleep(0.02)
    assert client.asked == asked
