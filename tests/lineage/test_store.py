"""The store: whole artifacts or none, drafts that survive, alterations that are found."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import pytest

from contracts.errors import ArtifactError, StorageError
from lineage.artifact import Artifact, content_digest, folder_digests
from lineage.chain import chain, links, source_files
from lineage.fingerprint import Recipe
from lineage.store import Store, storage_errors


def recipe(stage: str = "cohort", **settings: object) -> Recipe:
    return Recipe(stage, {}, settings, {}, {})


def make(store: Store, made_of: Recipe, text: str = "content", inputs: dict[str, Artifact] | None = None,
         sources: dict[str, str] | None = None) -> Artifact:
    with store.drafting(made_of.stage, made_of.key) as draft:
        (draft.out / "part").mkdir(exist_ok=True)
        (draft.out / "part" / "file.txt").write_text(text)
        return store.commit(draft, made_of.stage, made_of, inputs or {}, {"sources": sources or {}, "commit": "abc"})


def test_a_committed_artifact_is_found_by_its_recipe(tmp_path: Path) -> None:
    store = Store(tmp_path)
    artifact = make(store, recipe(x=1))
    assert store.find("cohort", recipe(x=1).key) == artifact
    assert store.find("cohort", recipe(x=2).key) is None
    assert (store.folder(artifact) / "part" / "file.txt").read_text() == "content"
    assert not list((tmp_path / "drafts").iterdir())


def test_the_digest_is_of_content_alone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert make(store, recipe(x=1)).sha256 == make(store, recipe(x=2)).sha256
    assert make(store, recipe(x=3), "other").sha256 != make(store, recipe(x=4)).sha256


def test_an_unfinished_draft_is_no_artifact_and_is_found_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(KeyboardInterrupt), store.drafting("cohort", recipe().key) as draft:
        (draft.scratch / "half").write_text("kept")
        (draft.out / "adapter").mkdir()
        raise KeyboardInterrupt
    assert store.find("cohort", recipe().key) is None
    with store.drafting("cohort", recipe().key) as draft:
        assert (draft.scratch / "half").read_text() == "kept"
        assert not list(draft.out.iterdir()), "what is half written there would stand in the way, or become part of it"


def test_an_altered_missing_or_added_file_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    artifact = make(store, recipe())
    assert store.verify(artifact) == []
    (store.folder(artifact) / "part" / "file.txt").write_text("forged")
    (store.folder(artifact) / "new.txt").write_text("added")
    assert store.verify(artifact) == ["new.txt", "part/file.txt"]
    store.discard(artifact)
    assert store.find("cohort", recipe().key) is None


def test_an_artifact_outside_the_workspace_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "workspace")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "manifest.json").write_text("{}")
    with pytest.raises(ArtifactError):
        store.folder(Artifact("cohort", "cohort-1", "../elsewhere", "0", "0"))


def test_an_id_can_be_shortened_and_a_kind_means_its_newest(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first, second = make(store, recipe(x=1)), make(store, recipe(x=2))
    assert store.resolve(first.id) == first
    assert store.resolve(first.id[:-3]) == first
    assert store.resolve("cohort") == second
    with pytest.raises(ArtifactError, match="no artifact"):
        store.resolve("expert-123")


def test_the_chain_ends_at_the_source_files(tmp_path: Path) -> None:
    store = Store(tmp_path)
    cohort = make(store, recipe("cohort"), sources={"tjh.xlsx": "f" * 64})
    expert = make(store, recipe("expert"), "weights", {"cohort": cohort})
    report = make(store, recipe("report"), "page", {"expert": expert, "cohort": cohort})
    node = chain(store, report, verify=True)
    assert source_files(node) == {"tjh.xlsx": "f" * 64}
    assert (report.id, "expert", expert.id) in set(links(node))
    assert node["altered"] == [] and json.dumps(node)


def _hold(workspace: str, key: str, marker: str) -> None:
    with Store(Path(workspace)).drafting("cohort", key) as draft:
        path = draft.scratch / "order"
        text = path.read_text() if path.exists() else ""
        path.write_text(text + marker)


def test_two_processes_take_turns_in_one_draft(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    children = [context.Process(target=_hold, args=(str(tmp_path), recipe().key, mark)) for mark in "ab"]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    with Store(tmp_path).drafting("cohort", recipe().key) as draft:
        assert sorted((draft.scratch / "order").read_text()) == ["a", "b"]


def test_a_full_disk_becomes_an_error_with_a_next_step(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no space left") as caught, storage_errors(tmp_path):
        raise OSError(28, os.strerror(28))
    assert "kept" in caught.value.next_step


@pytest.mark.parametrize("name", ["none/x", "file/x", "folder", "x" * 300])
def test_a_place_that_takes_no_file_becomes_an_error_with_a_next_step(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written") as caught, storage_errors(tmp_path / name):
        (tmp_path / name).write_text("")
    assert "--out" in caught.value.next_step


@pytest.mark.parametrize("workspace", ["file", "file/below"])
def test_a_workspace_that_is_a_file_is_refused(workspace: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Not a directory"):
        Store(tmp_path / workspace)


def test_a_file_that_a_stage_misses_is_no_fault_of_the_store(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), Store(tmp_path).drafting("cohort", recipe().key) as draft:
        (draft.out / "none").read_text()


def test_folder_digests_see_every_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("1")
    before = content_digest(folder_digests(tmp_path))
    (tmp_path / "a" / "x").rename(tmp_path / "a" / "y")
    assert content_digest(folder_digests(tmp_path)) != before


@pytest.mark.parametrize("name", ["../x", "a/b", "..", ".hidden", "", "a\\b\n", "a\0b", "/etc", "x" * 300])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path / "workspace")
    for attempt in (lambda: store.find(name, "0" * 64), lambda: store.last_recipe(name, "cohort"),
                    lambda: store.remember("study", name, recipe()), lambda: store.remember(name, "cohort", recipe())):
        with pytest.raises(ArtifactError, match="the name"):
            attempt()
    with pytest.raises(ArtifactError), store.drafting(name, "0" * 64):
        raise AssertionError("no draft of that name")
    assert [path.name for path in tmp_path.iterdir()] == ["workspace"]


def test_names_of_stages_variants_and_arms_are_taken(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name in ("cohort", "verdicts-stage1+2", "perturbed-verdicts-stage1+2@shuffle-1.0", "a_b.c"):
        store.remember("tjh_small", name, recipe())
        assert store.last_recipe("tjh_small", name) is not None


def test_an_artifact_is_never_discarded_outside_the_workspace(tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "manifest.json").write_text("{}")
    with pytest.raises(ArtifactError):
        Store(tmp_path / "workspace").discard(Artifact("cohort", "cohort-1", "../victim", "0", "0"))
    assert (tmp_path / "victim" / "manifest.json").exists()
