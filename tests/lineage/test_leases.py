"""Leases: what lives is seen with its names, what was killed is forgotten."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

from lineage.leases import guarded, leased, running
from lineage.store import Store


def _run(workspace: str) -> None:
    with leased(Path(workspace), "night") as lease:
        lease.take("cohort-0123456789ab")
        time.sleep(600)


def test_a_running_study_shows_its_names_and_a_killed_one_is_forgotten(tmp_path: Path) -> None:
    Store(tmp_path)
    child = multiprocessing.get_context("spawn").Process(target=_run, args=(str(tmp_path),))
    child.start()
    while True:
        with guarded(tmp_path):
            found = running(tmp_path)
        if found and found[0].names:
            break
        assert child.is_alive()
        time.sleep(0.05)
    assert [(lease.study, lease.pid, lease.names) for lease in found] == [
        ("night", child.pid, {"cohort-0123456789ab"})]
    child.kill()
    child.join()
    with guarded(tmp_path):
        assert running(tmp_path) == []
    assert list((tmp_path / "leases").iterdir()) == []


def test_a_lease_ends_with_its_block(tmp_path: Path) -> None:
    Store(tmp_path)
    with leased(tmp_path, "day"), leased(tmp_path, "served", makes=False), guarded(tmp_path):
        assert [(lease.study, lease.makes) for lease in running(tmp_path)] == [("day", True), ("served", False)]
    assert list((tmp_path / "leases").iterdir()) == []
