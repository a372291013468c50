"""The ledger of extracts: lines survive, torn ones are passed over, and it knows which study is still to be made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from contracts.errors import StorageError
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


def test_an_arrival_whose_files_changed_since_is_not_pending_until_it_is_judged_anew(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.add("/x/current", "arrived", "new", **ARRIVED)
    ledger.add("/x/other", "waiting", "half-copied")
    assert (ledger.pending() or {})["digest"] == "d1"
    for status in ("waiting", "broken"):
        ledger.add("/x/current", status, "half-copied")
        assert ledger.pending() is None and ledger.pending("/x/current") is None
    ledger.add("/x/current", "arrived", "new", **{**ARRIVED, "digest": "d2"})
    assert (ledger.pending("/x/current") or {})["digest"] == "d2"


def test_each_study_has_arrivals_of_its_own_to_study(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.add("/x/a", "arrived", "new", **ARRIVED, study="first")
    ledger.add("/x/a", "studied", "champion kept", digest="d1", study="first")
    assert ledger.pending("/x/a", "first") is None and ledger.pending() is None
    assert (ledger.pending("/x/a", "second") or {})["place"] == "/x/a"
    ledger.add("/x/a", "studied", "champion kept", digest="d1")  # of no study: as before studies were told apart
    assert ledger.pending("/x/a", "second") is None


def test_an_arrival_is_untold_to_a_study_until_it_is_offered(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert ledger.untold("second") is None
    ledger.add("/x/a", "arrived", "new", **ARRIVED, study="first")
    assert ledger.untold("first") is None and (ledger.untold("second") or {})["digest"] == "d1"
    ledger.add("/x/a", "offered", "told", digest="d1", study="second")
    assert ledger.untold("second") is None and (ledger.untold("third") or {})["digest"] == "d1"
    ledger.add("/x/a", "studied", "champion kept", digest="d1", study="third")
    assert ledger.untold("third") is None
    ledger.add("/x/b", "arrived", "new", **{**ARRIVED, "digest": "d2"})  # of no study: all were told
    assert ledger.untold("second") is None


def made(*names: str) -> dict[str, dict[str, str]]:
    return {name.partition("-")[0]: {"id": name} for name in names}


def test_what_the_next_comparisons_read_is_needed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert ledger.needed_artifacts() == set()
    for digest, study, champion in (("1", "a", True), ("2", "a", True), ("3", "a", False), ("4", "a", False),
                                    ("1", "b", True)):
        ledger.add("/x", "studying", "begun", digest=digest, study=study, last=made(f"cohort-of-{digest}{study}"))
        ledger.add("/x", "studied", "", digest=digest, study=study, champion=champion,
                   artifacts=made(f"cohort-{digest}{study}", f"rl-{digest}{study}"))
    ended = {"cohort-2a", "rl-2a", "cohort-4a", "rl-4a", "cohort-1b", "rl-1b"}
    assert ledger.needed_artifacts() == ended
    ledger.add("/x", "studying", "begun", digest="2", study="b", last=made("cohort-by-hand"))
    ledger.add("/x", "failed", "no memory", digest="2", study="b")
    assert ledger.needed_artifacts() == {*ended, "cohort-by-hand"}


def test_looks_are_kept_and_a_spoilt_file_of_them_is_begun_anew(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.keep_looks({"/x/a": {"listing": "l", "since": 1.0, "looks": 2}})
    assert Ledger(tmp_path).looks() == {"/x/a": {"listing": "l", "since": 1.0, "looks": 2}}
    ledger.looks_file.write_text(json.dumps({})[:-1])
    assert ledger.looks() == {}


def test_a_ledger_needs_a_workspace_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be made") as caught:
        Ledger(tmp_path / "file")
    assert "paths.workspace" in caught.value.next_step
