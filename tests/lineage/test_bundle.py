"""Bundles: the same study comes out, nothing of a patient goes in, and nothing that was tampered with is taken."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import ArtifactError, DataError, MissingFileError
from lineage import bundle
from lineage.artifact import Artifact
from lineage.carried_runs import carried
from lineage.portable import guard
from lineage.store import MANIFEST, Store
from support.small_store import ANSWER, EVIDENCE, STAYS, small_store

Entries = list[tuple[tarfile.TarInfo, bytes]]


def export(store: Store, made: dict[str, Artifact], out: Path) -> dict[str, Any]:
    entries = {one.id: store.manifest(one) for one in made.values()}
    members = {bundle.RUNS: b"[]", **dict(bundle.collect(store, entries))}
    return bundle.write(out, {"study": "small", "labels": {}}, members, guard(STAYS, [EVIDENCE, ANSWER]))


@pytest.fixture
def exported(tmp_path: Path) -> tuple[Path, dict[str, Artifact]]:
    store, made = small_store(tmp_path)
    export(store, made, tmp_path / "small.tar.gz")
    return tmp_path / "small.tar.gz", made


def test_reports_models_and_manifests_come_out_and_no_table(exported: tuple[Path, dict[str, Artifact]]) -> None:
    path, made = exported
    contents, folder = bundle.unpack(path, path.parent / "imported")
    names = {name.split("/", 2)[-1] for name in contents["members"]}
    assert names == {bundle.RUNS, MANIFEST, "meta.json", "adapter/adapter_config.json", "notes.json",
                     "report_to_share.html",
                     "adapter/adapter_model.safetensors", "report.md", "table.json"}
    assert json.loads((folder / "artifacts" / made["rl"].id / MANIFEST).read_text())["artifact"] == made["rl"].to_json()
    everything = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert not any(secret.encode() in everything for secret in (*STAYS, EVIDENCE, ANSWER))


def test_the_same_study_gives_the_same_bytes_and_the_same_folder(exported: tuple[Path, dict[str, Artifact]]) -> None:
    path, made = exported
    export(Store(path.parent / "workspace"), made, path.parent / "again.tar.gz")
    assert (path.parent / "again.tar.gz").read_bytes() == path.read_bytes()
    first, second = (bundle.unpack(path, path.parent / "imported")[1] for _ in range(2))
    assert first == second and [one.name for one in (path.parent / "imported").iterdir()] == [first.name]


def test_a_study_with_a_patient_in_a_listed_file_is_not_written(tmp_path: Path) -> None:
    store, made = small_store(tmp_path)
    (store.folder(made["report"]) / "report.md").write_text(f"one patient: {EVIDENCE}")
    with pytest.raises(DataError, match=r"report\.md holds a piece of a patient"):
        export(store, made, tmp_path / "out.tar.gz")
    assert not (tmp_path / "out.tar.gz").exists()


def _entries(path: Path) -> Entries:
    with tarfile.open(path) as archive:
        return [(entry, archive.extractfile(entry).read()) for entry in archive]  # type: ignore[union-attr]


def _contents(entries: Entries, change: Callable[[dict[str, Any]], None]) -> Entries:
    values = json.loads(entries[0][1])
    change(values)
    data = json.dumps(values).encode()
    entries[0][0].size = len(data)
    return [(entries[0][0], data), *entries[1:]]


def _member(name: str, data: bytes = b"x", kind: bytes = tarfile.REGTYPE, link: str = ""
            ) -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.size = kind, link, len(data) if kind == tarfile.REGTYPE else 0
    return entry, data


def _listed(entries: Entries, name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> Entries:
    """A further member that the table of contents names too."""
    def add(values: dict[str, Any]) -> None:
        values["members"][name] = {"sha256": hashlib.sha256(b"x").hexdigest(), "bytes": 1}

    return [*_contents(entries, add), _member(name, b"x", kind, link)]


def _altered(entries: Entries) -> Entries:
    return [(entry, data.replace(b"AUROC 81.2", b"AUROC 99.9")) for entry, data in entries]


def _forged(entries: Entries) -> Entries:
    """A file and its digest in the table of contents altered, its manifest not."""
    changed = _altered(entries)

    def sign(values: dict[str, Any]) -> None:
        for entry, data in changed[1:]:
            values["members"][entry.name]["sha256"] = hashlib.sha256(data).hexdigest()

    return _contents(changed, sign)


RL = "artifacts/rl-0123456789ab"
TAMPERED: dict[str, Callable[[Entries], Entries]] = {
    "a way out": lambda entries: _listed(entries, "../evil.json"),
    "a way out of an artifact": lambda entries: _listed(entries, f"{RL}/../../evil.json"),
    "an absolute name": lambda entries: _listed(entries, "/etc/evil.json"),
    "a backslash": lambda entries: _listed(entries, f"{RL}/adapter\\evil.json"),
    "a table of rows": lambda entries: _listed(entries, f"{RL}/rollouts.parquet"),
    "a pickle": lambda entries: _listed(entries, f"{RL}/adapter/adapter_model.bin"),
    "a file of no manifest": lambda entries: _listed(entries, f"{RL}/progress.jsonl"),
    "a symbolic link": lambda entries: _listed(entries, f"{RL}/progress.jsonl", tarfile.SYMTYPE, "/etc/passwd"),
    "a hard link": lambda entries: _listed(entries, f"{RL}/progress.jsonl", tarfile.LNKTYPE, bundle.RUNS),
    "a member that is not listed": lambda entries: [*entries, _member(f"{RL}/progress.jsonl")],
    "a member twice": lambda entries: [*entries, entries[-1]],
    "a member that is missing": lambda entries: entries[:-1],
    "an altered file": _altered,
    "a forged file": _forged,
    "no table of contents": lambda entries: entries[1:],
    "a study with a way out": lambda entries: _contents(entries, lambda values: values.update(study="../x")),
    "another format": lambda entries: _contents(entries, lambda values: values.update(format=99)),
    "members that are none": lambda entries: _contents(entries, lambda values: values.update(members=["x"])),
    "no runs": lambda entries: _contents(entries, lambda values: values["members"].pop(bundle.RUNS)),
    "no labels": lambda entries: _contents(entries, lambda values: values.pop("labels")),
    "a label with a way out": lambda entries: _contents(
        entries, lambda values: values.update(labels={"rl": "../../artifacts/patients/patients-0123456789ab"})),
    "a size below nothing": lambda entries: _contents(
        entries, lambda values: values["members"][bundle.RUNS].update(bytes=-1)),
    "more than a disk holds": lambda entries: _contents(
        entries, lambda values: values["members"][bundle.RUNS].update(bytes=1 << 50)),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_what_was_tampered_with_is_refused_and_leaves_nothing(how: str, exported: tuple[Path, dict[str, Artifact]]
                                                              ) -> None:
    path, _ = exported
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for entry, data in TAMPERED[how](_entries(path)):
            entry.size = len(data) if entry.isreg() else 0
            archive.addfile(entry, io.BytesIO(data))
    path.write_bytes(gzip.compress(buffer.getvalue()))
    place = path.parent / "imported" / "place"
    with pytest.raises(ArtifactError, match="unaltered"):
        bundle.unpack(path, place)
    assert list(place.iterdir()) == [] and not (path.parent / "imported" / "evil.json").exists()


def test_a_bit_that_flipped_anywhere_is_found(exported: tuple[Path, dict[str, Artifact]]) -> None:
    path, _ = exported
    whole = path.read_bytes()
    for place in range(20, len(whole) - 9, len(whole) // 80):  # the last before it has idle bits
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1:])
        with pytest.raises(ArtifactError):
            bundle.unpack(path, path.parent / "imported")


@pytest.mark.parametrize("part", [b'"study": "', b'"sha256": "'])
def test_an_altered_table_of_contents_is_found(exported: tuple[Path, dict[str, Artifact]], part: bytes) -> None:
    path, _ = exported
    whole = bytearray(gzip.compress(gzip.decompress(path.read_bytes()), compresslevel=0))
    whole[whole.index(part) + len(part)] ^= 0x01
    path.write_bytes(whole)
    with pytest.raises(ArtifactError):
        bundle.unpack(path, path.parent / "imported")
    assert list((path.parent / "imported").iterdir()) == []


@pytest.mark.parametrize("more", [b"\0" * 20_000, b"hidden"])
def test_nothing_follows_the_last_member(exported: tuple[Path, dict[str, Artifact]], more: bytes) -> None:
    path, _ = exported
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + more))
    with pytest.raises(ArtifactError, match="no padding"):
        bundle.unpack(path, path.parent / "imported")


RUN = {"id": "a" * 32, "name": "rl", "status": "FINISHED", "start": 1, "end": 2, "metrics": {"loss": [[1, 5, 0.5]]},
       "inputs": [], "params": {}, "tags": {"artifact.id": "rl-0123456789ab"}}


def test_runs_of_a_bundle_are_taken_as_they_were_written() -> None:
    assert carried(json.dumps([RUN])) == [{**RUN, "metrics": {"loss": [(1, 5, 0.5)]}}]


@pytest.mark.parametrize("change", [
    {"tags": {"artifact.id": "../../../artifacts/patients/patients-0123456789ab"}},
    {"tags": {"artifact.id": "/etc/rl-0123456789ab"}}, {"tags": {"mlflow.user": "x"}}, {"id": "' or ''='"},
    {"status": "DONE"}, {"start": "1"}, {"more": 1}, {"metrics": {"loss": [[1, 2]]}}])
def test_a_run_that_no_export_writes_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError, match=r"runs\.json, 0\."):
        carried(json.dumps([{**RUN, **change}]))
    with pytest.raises(ArtifactError, match="as a whole"):
        carried("no JSON")


@pytest.mark.parametrize("data", [b"", b"no gzip", gzip.compress(b"no tar"), gzip.compress(b"no tar" * 200)[:40]],
                         ids=["empty", "no gzip", "no tar", "cut off"])
def test_what_is_no_bundle_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.tar.gz").write_bytes(data)
    with pytest.raises(ArtifactError):
        bundle.unpack(tmp_path / "x.tar.gz", tmp_path / "imported")
    with pytest.raises(MissingFileError):
        bundle.unpack(tmp_path / "nothing.tar.gz", tmp_path / "imported")
