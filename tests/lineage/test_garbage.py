"""What is freed and what stays: superseded work goes, whatever a kept, running or crowned study needs does not."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from lineage.artifact import Artifact
from lineage.garbage import needed, remove, size, studies, waste
from lineage.leases import Lease
from lineage.store import Store
from support.small_store import put, small_store


def names(found: list, kind: str = "artifact") -> set[str]:
    return {one.name for one in found if one.kind == kind}


@pytest.fixture
def shared(tmp_path: Path) -> tuple[Store, dict[str, Artifact], Artifact]:
    """Study "small", and study "other" with a report of its own on the same cohort, and results of Prefect for all."""
    store, made = small_store(tmp_path)
    other = put(store, "report", {"report.md": "other"}, {"cohort": made["cohort"]}, study="other")
    for artifact in (*made.values(), other):
        result = store.workspace / "prefect" / "storage" / artifact.recipe
        result.parent.mkdir(parents=True, exist_ok=True)
        result.write_text("{}")
    return store, made, other


def test_all_that_any_study_uses_stays(shared: tuple[Store, dict[str, Artifact], Artifact]) -> None:
    store, made, other = shared
    assert studies(store) == ["other", "small"]
    stay = needed(store, studies(store), (), ())
    assert stay == {artifact.id for artifact in (*made.values(), other)}
    assert waste(store, stay, studies(store)) == []


def test_what_a_study_no_longer_uses_goes_with_its_result(shared: tuple[Store, dict[str, Artifact], Artifact]) -> None:
    store, made, _ = shared
    put(store, "report", {"report.md": "newer"}, {"rl": made["rl"]})
    stay = needed(store, studies(store), (), ())
    found = waste(store, stay, studies(store))
    assert names(found) == {made["report"].id} and names(found, "result") == {made["report"].recipe}
    assert sum(one.bytes for one in found if one.kind == "artifact") == size(store.folder(made["report"]))
    assert all(remove(store, one) for one in found)
    assert waste(store, stay, studies(store)) == [] and store.verify(made["verdicts"]) == []
    assert store.find("report", made["report"].recipe) is None and store.verify(made["cohort"]) == []


def test_of_a_study_that_is_not_kept_only_what_others_share_stays(
        shared: tuple[Store, dict[str, Artifact], Artifact]) -> None:
    store, made, other = shared
    found = waste(store, needed(store, ["other"], (), ()), ["other"])
    assert names(found) == {artifact.id for role, artifact in made.items() if role != "cohort"}
    assert names(found, "ledger") == {"small"}
    assert made["cohort"].recipe not in names(found, "result") and other.recipe not in names(found, "result")


def test_a_champion_and_what_a_running_study_holds_stay(shared: tuple[Store, dict[str, Artifact], Artifact]) -> None:
    store, made, other = shared
    crowned = needed(store, ["other"], (), [made["rl"].id])
    assert crowned == {made[role].id for role in ("rl", "base", "patients", "cohort")} | {other.id}
    held = needed(store, ["other"], [Lease("new", 1, {made["verdicts"].id, "sft-000000000000"})], ())
    assert {made[role].id for role in ("verdicts", "rl", "base", "patients", "cohort")} <= held
    assert needed(store, ["other"], [Lease("small", 1)], ()) >= {artifact.id for artifact in made.values()}
    assert needed(store, ["other"], [Lease("small", 1, {made["base"].id}, makes=False)], ()) == {
        made["base"].id, made["cohort"].id, other.id}


def test_unfinished_work_stays_with_its_study_and_what_somebody_works_on_always(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for study, key in (("kept", "a" * 64), ("gone", "b" * 64)):
        with pytest.raises(KeyboardInterrupt), store.drafting("rl", key, study) as draft:
            (draft.scratch / "checkpoint").write_text("x" * 100)
            raise KeyboardInterrupt
    found = waste(store, set(), ["kept"])
    assert names(found, "scratch") == {"rl-" + "b" * 12} and found[0].bytes >= 100
    with store.drafting("rl", "b" * 64, "gone"):
        assert remove(store, found[0]) is False
    assert (tmp_path / "drafts" / f"rl-{'b' * 12}" / "scratch" / "checkpoint").exists()
    assert remove(store, found[0]) and not (tmp_path / "drafts" / f"rl-{'b' * 12}").exists()
    assert not (tmp_path / "locks" / f"rl-{'b' * 12}.lock").exists()


def test_age_protects(shared: tuple[Store, dict[str, Artifact], Artifact]) -> None:
    store, made, _ = shared
    put(store, "report", {"report.md": "newer"}, {"rl": made["rl"]})
    stay, old = needed(store, studies(store), (), ()), store.folder(made["report"])
    assert waste(store, stay, studies(store), older_than=1.0) == []
    for path in (*old.rglob("*"), old):
        os.utime(path, (time.time() - 2 * 86400,) * 2)
    assert names(waste(store, stay, studies(store), older_than=1.0)) == {made["report"].id}


def test_tables_of_files_that_no_kept_cohort_was_read_from_go_and_models_that_none_names(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name in ("chartevents-" + "1" * 16 + "-aa-1", "chartevents-" + "2" * 16 + "-aa-1", "days-aa-1", ".days-half"):
        (tmp_path / "cache" / name).mkdir(parents=True)
        (tmp_path / "cache" / name / "x.parquet").write_text("x")
    for name in ("used", "unused"):
        (tmp_path / "models" / name).mkdir(parents=True)
    cohort = put(store, "cohort", {"meta.json": "{}"}, sources={"icu/chartevents": "1" * 64})
    entry = {"name": "x", "folder": str(tmp_path / "models" / "used"), "files": {}}
    base = put(store, "base", {"model.json": json.dumps(entry)})
    found = waste(store, {cohort.id, base.id}, ["small"])
    assert names(found, "cache") == {"chartevents-" + "2" * 16 + "-aa-1", ".days-half"}
    assert names(found, "model") == {"unused"}
    assert names(waste(store, {base.id}, ["small"]), "cache") >= {"days-aa-1", "chartevents-" + "1" * 16 + "-aa-1"}
    busy = waste(store, {base.id}, ["small"], idle=False)
    assert names(busy, "cache") == set() and names(busy, "model") == set()
