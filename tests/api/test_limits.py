"""Rates and places: how much is let through, and how long to wait."""

from __future__ import annotations

import pytest

from api.limits import Bucket, Places
from api.problems import RefusedError


def test_a_bucket_lets_a_burst_through_and_then_its_rate() -> None:
    now = [100.0]
    bucket = Bucket(rate=2.0, burst=3, clock=lambda: now[0])
    assert [bucket.take() for _ in range(3)] == [0.0, 0.0, 0.0]
    assert bucket.take() == pytest.approx(0.5)
    now[0] += 0.5
    assert bucket.take() == 0.0 and bucket.take() > 0.0
    now[0] += 60.0
    assert [bucket.take() for _ in range(4)] == [0.0, 0.0, 0.0, pytest.approx(0.5)]


def test_places_are_freed_however_the_work_ends() -> None:
    places = Places(1)
    with pytest.raises(ZeroDivisionError), places.one():
        raise ZeroDivisionError
    with places.one():
        with pytest.raises(RefusedError) as caught, places.one():
            pass
        assert caught.value.status == 503 and "Retry-After" in caught.value.headers
    assert places.taken == 0
