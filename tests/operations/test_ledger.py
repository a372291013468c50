"""The ledger of extracts: lines survive, torn ones are passed over, and it knows which study is still to be made."""

from __future__ import annotations

import json
from pathlib import Path

from operations.ledger import Ledger

ARRIVED = {"digest": "d1", "version": "3.1", "date": ""}


def test_lines_survive_and_a_torn_one_is_passed_over(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.add("/x/a", "waiting", "half-copied")
    with ledger.file.open("a") as stream:
        stream.write('{"place": "/x/a", "stat')  # a power cut
    Ledger(tmp_path).add("/x/a", "arrived", "new", **ARRIVED)
    assert [row["status"] for row in Ledger(tmp_path).rows()] == ["waiting", "arrived"]
    assert len(ledger.file.read_text().splitlines()) == 3
    assert ledger.releases()[0][0] == "a" and ledger.last("/x/a", ("arrived",))["version"] == "3.1"  # type: ignore[index]


def test_an_arrival_is_pending_until_its_study_has_ended_well(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert ledger.pending() is None and ledger.pending("/x/a") is None
    ledger.add("/x/a", "arrived", "new", **ARRIVED)
    ledger.add("/x/a", "studying", "begun", digest="d1")
    ledger.add("/x/a", "failed", "no memory", digest="d1")
    assert (ledger.pending() or {})["place"] == (ledger.pending("/x/a") or {})["place"] == "/x/a"
    ledger.add("/x/a", "studied", "champion kept", digest="d1")
    assert ledger.pending() is None and ledger.pending("/x/a") is None


def test_only_the_newest_arrival_is_studied(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.add("/x/a", "arrived", "new", **ARRIVED)
    ledger.add("/x/b", "arrived", "new", **{**ARRIVED, "digest": "d2"})
    ledger.add("/x/c", "duplicate", "of b", **{**ARRIVED, "digest": "d2"})
    assert ledger.pending("/x/a") is None and ledger.pending("/x/c") is None
    assert (ledger.pending() or {})["place"] == "/x/b"


def test_looks_are_kept_and_a_spoilt_file_of_them_is_begun_anew(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.keep_looks({"/x/a": {"listing": "l", "since": 1.0, "looks": 2}})
    assert Ledger(tmp_path).looks() == {"/x/a": {"listing": "l", "since": 1.0, "looks": 2}}
    ledger.looks_file.write_text(json.dumps({})[:-1])
    assert ledger.looks() == {}
