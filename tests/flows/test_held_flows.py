"""Flows that run alone hold what they use, as a study does: `eag-rl gc` meanwhile takes nothing of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import flows.prepare_cohort
import flows.train_expert
from flows.opening import held, open_session
from lineage.artifact import Artifact
from lineage.leases import guarded, running


def test_a_flow_alone_and_the_flow_before_it_share_one_lease_that_ends_with_them(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def make(session: Any, _inputs: Any) -> Artifact:
        with guarded(session.workspace):
            seen.append([lease.study for lease in running(session.workspace)])
        return Artifact("cohort", "cohort-0123456789ab", "artifacts/cohort/cohort-0123456789ab", "0" * 64, "1" * 64)

    for place, name in ((flows.prepare_cohort, "cohort"), (flows.train_expert, "expert"),
                        (flows.train_expert, "readings")):
        monkeypatch.setattr(place, name, SimpleNamespace(run=make))
    monkeypatch.setattr(flows.train_expert, "prepare_cohort", flows.prepare_cohort.prepare_cohort.fn)
    settings = [f"paths.workspace={tmp_path}", "study.name=alone"]
    assert set(flows.train_expert.train_expert.fn("demo", settings)) == {"cohort", "expert", "readings"}
    assert seen == [["alone"]] * 3
    with guarded(tmp_path):
        assert running(tmp_path) == []


def test_a_lease_that_an_arms_session_remembers_from_before_holds_nothing(tmp_path: Path) -> None:
    session = open_session("demo", [f"paths.workspace={tmp_path}", "study.name=again"])
    with held(session):
        ended = session.lease
    session.lease = ended  # as the session of an arm keeps it
    with held(session), guarded(tmp_path):
        assert [lease.study for lease in running(tmp_path)] == ["again"] and session.lease is not ended
