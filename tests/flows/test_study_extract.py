"""With whom the study of a new extract is compared: the study whose policy is the champion, be it by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from flows.study_extract import _champion
from lineage.artifact import Artifact


def row(night: int, **facts: Any) -> dict[str, Any]:
    """A line of the ledger about a finished study, with its policy."""
    made = Artifact("rl", f"rl-{night}", f"artifacts/rl/rl-{night}", "0" * 64, "r" * 64)
    return {"artifacts": {"rl": made.to_json()}, **facts}


def champion(crowned: str | None, *rows: dict[str, Any]) -> list[str]:
    found = SimpleNamespace(artifact=crowned) if crowned else None
    registry = SimpleNamespace(champion=lambda _study, _role: found)
    session: Any = SimpleNamespace(config=SimpleNamespace(study=SimpleNamespace(name="nightly")),
                                   tracker=SimpleNamespace(registry=registry))
    return [artifact.id for artifact in _champion(session, list(rows)).values()]


def test_the_last_study_that_was_found_better_is_the_champions() -> None:
    assert champion("rl-2", row(1, champion=True), row(2, champion=True), row(3, champion=False)) == ["rl-2"]
    assert champion(None, row(1, champion=True), row(2, champion=False)) == ["rl-1"]
    assert champion(None, row(1, champion=False)) == champion(None) == []


def test_a_choice_by_hand_goes_before_that() -> None:
    assert champion("rl-3", row(1, champion=True), row(2, champion=True), row(3, champion=False)) == ["rl-3"]
    assert champion("rl-of-no-extract", row(1, champion=True), row(2)) == ["rl-1"]
