"""The store when things go wrong: forged manifests, torn ones, owners that were killed, folders that take no file."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import time
from pathlib import Path

from lineage.artifact import content_digest, folder_digests
from lineage.store import MANIFEST, Store
from support.ordinary_user import ordinary_user
from support.small_store import put


def test_a_manifest_that_denies_its_own_files_is_found(tmp_path: Path) -> None:
    store = Store(tmp_path)
    artifact = put(store, "report", {"table.json": "[]"})
    folder = store.folder(artifact)
    (folder / "table.json").write_text("[1]")
    entry = json.loads((folder / MANIFEST).read_text())
    entry["files"] = folder_digests(folder, skip=(MANIFEST,))  # file and digest forged, the digest of digests not
    (folder / MANIFEST).write_text(json.dumps(entry))
    assert store.verify(artifact) == [MANIFEST]
    entry["artifact"]["sha256"] = content_digest(entry["files"])  # that one too: it is not the one that was used
    (folder / MANIFEST).write_text(json.dumps(entry))
    assert store.verify(artifact) == [MANIFEST]


def test_a_torn_manifest_hides_nothing_else_and_its_artifact_is_made_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    torn, whole = put(store, "report", {"table.json": "[]"}), put(store, "cohort", {"meta.json": "{}"})
    (store.folder(torn) / MANIFEST).write_text('{"artifact": {')
    assert [entry["artifact"]["id"] for entry in store.manifests()] == [whole.id]
    assert store.resolve("cohort") == whole
    assert store.settle("report", torn.recipe) == (None, [MANIFEST])
    assert not (tmp_path / torn.uri).exists()
    assert store.settle("cohort", whole.recipe) == (whole, [])


def test_an_altered_artifact_is_removed_once_and_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    artifact = put(store, "report", {"table.json": "[]"})
    (store.folder(artifact) / "table.json").write_text("[1]")
    assert store.settle("report", artifact.recipe) == (None, ["table.json"])
    assert store.settle("report", artifact.recipe) == (None, [])
    assert put(store, "report", {"table.json": "[]"}) == artifact


def _hold_for_ever(workspace: str, key: str) -> None:
    with Store(Path(workspace)).drafting("cohort", key, "night") as draft:
        (draft.scratch / "half").write_text("kept")
        time.sleep(600)


def test_whoever_waits_is_told_for_whom_and_a_killed_owner_holds_nothing(tmp_path: Path) -> None:
    store, key = Store(tmp_path), "a" * 64
    owner = multiprocessing.get_context("spawn").Process(target=_hold_for_ever, args=(str(tmp_path), key))
    owner.start()
    half, told = tmp_path / "drafts" / f"cohort-{key[:12]}" / "scratch" / "half", []
    while not half.exists():
        assert owner.is_alive()
        time.sleep(0.05)

    def kill(who: str) -> None:
        told.append(who)
        owner.kill()

    with store.drafting("cohort", key, "day", kill) as draft:
        assert (draft.scratch / "half").read_text() == "kept"
    owner.join()
    assert told == [f"study night, process {owner.pid}"]


def test_a_folder_that_takes_no_file_stops_a_study_before_it_begins(tmp_path: Path) -> None:
    store = Store(tmp_path / "workspace")
    kept = put(store, "cohort", {"meta.json": "{}"})
    (store.workspace / "artifacts").chmod(0o555)
    code = ("import sys\nfrom pathlib import Path\nfrom contracts.errors import StorageError\n"
            "from lineage.store import Store\ntry:\n    Store(Path(sys.argv[1])).require_writable()\n"
            "except StorageError as error:\n    print(error.value)")
    try:
        said = subprocess.run([sys.executable, "-c", code, str(store.workspace)], capture_output=True, text=True,
                              check=True, preexec_fn=ordinary_user)
    finally:
        (store.workspace / "artifacts").chmod(0o755)
    assert said.stdout.strip() == f"{store.workspace / 'artifacts'} is not writable"
    assert store.verify(kept) == []
