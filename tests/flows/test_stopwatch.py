"""The stopwatch of stages: seconds of all lives of a piece of work."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tasks.stopwatch import Stopwatch


def test_it_counts_what_passes_inside_and_nothing_after(tmp_path: Path) -> None:
    with Stopwatch(tmp_path / "watch.json") as watch:
        time.sleep(0.05)
    taken = watch.seconds
    time.sleep(0.05)
    assert watch.seconds == taken and 0.05 <= taken < 2.0
    assert json.loads((tmp_path / "watch.json").read_text())["seconds"] == pytest.approx(taken, abs=1e-3)


def test_a_later_life_goes_on_from_the_reading_of_the_one_before(tmp_path: Path) -> None:
    (tmp_path / "watch.json").write_text('{"seconds": 100.0}')
    with Stopwatch(tmp_path / "watch.json") as watch:
        assert watch.before == 100.0
    assert 100.0 <= watch.seconds < 102.0


def test_a_failure_inside_keeps_the_reading(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="broken"), Stopwatch(tmp_path / "watch.json"):
        raise ValueError("broken")
    assert Stopwatch(tmp_path / "watch.json").before >= 0.0 and (tmp_path / "watch.json").is_file()


def test_what_a_kill_would_leave_is_on_disk_while_it_runs(tmp_path: Path) -> None:
    with Stopwatch(tmp_path / "watch.json", every=0.01):
        limit = time.monotonic() + 5.0
        while not (tmp_path / "watch.json").is_file() and time.monotonic() < limit:
            time.sleep(0.01)
        assert Stopwatch(tmp_path / "watch.json").before > 0.0
