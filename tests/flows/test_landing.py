"""The landing folder with generated extracts: which arrive, which never start a study, and what is said of each."""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from configs.load import dump, load
from contracts.errors import ConfigError, StorageError
from ehr.extracts.write import synthesize
from flows.landing import Landing, digest_of
from support.damaged_gzip import damaged_gzip
from tasks.session import Session, session_of


class Watched:
    """A landing folder and all that was said of it."""

    def __init__(self, folder: Path, *settings: str) -> None:
        self.settings = ("cohort.source=mimic_iv", f"paths.workspace={folder / 'workspace'}",
                         "landing.stable_seconds=1000", *settings)
        self.told: list[dict[str, Any]] = []
        self.again()
        self.folder = Path(str(self.landing.folder))

    def again(self) -> None:
        """As after a restart."""
        self.landing = Landing(load("demo", self.settings), self.told.append)

    def look(self, times: int = 3) -> dict[str, str]:
        for _ in range(times):
            self.landing.look()
        return {row["extract"]: f"{row['status']}: {row['reason']}" for row in self.told}

    def statuses(self, name: str) -> list[str]:
        return [row["status"] for row in self.told if row["extract"] == name]


@pytest.fixture(scope="module")
def extract(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize(tmp_path_factory.mktemp("made") / "x", "mimic-iv-2.2", 20, rows_per_stay=1).folder


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize(tmp_path_factory.mktemp("made") / "x", "mimic-iv-3.1", 20, seed=7, rows_per_stay=1).folder


def test_a_whole_extract_arrives_once_and_still_after_a_restart(tmp_path: Path, extract: Path) -> None:
    watched = Watched(tmp_path)
    shutil.copytree(extract, watched.folder / "mimic-iv-2.2")
    assert "complete and new, version 2.2" in watched.look()["mimic-iv-2.2"]
    watched.again()
    watched.look()
    assert watched.statuses("mimic-iv-2.2") == ["waiting", "arrived"]
    assert [row["status"] for row in watched.landing.ledger.rows()] == ["waiting", "arrived"]


def test_one_that_is_being_copied_waits_until_it_is_whole(tmp_path: Path, extract: Path) -> None:
    watched = Watched(tmp_path)
    shutil.copytree(extract, watched.folder / "a", ignore=shutil.ignore_patterns("chartevents*"))
    assert "are missing (icu/chartevents.csv.gz)" in watched.look()["a"]
    whole = (extract / "icu" / "chartevents.csv.gz").read_bytes()
    (watched.folder / "a" / "icu" / "chartevents.csv.gz").write_bytes(whole[:1000])
    assert "the sha256 of icu/chartevents.csv.gz is not that" in watched.look()["a"]
    (watched.folder / "a" / "icu" / "chartevents.csv.gz").write_bytes(whole)
    assert "complete and new" in watched.look()["a"]
    assert watched.statuses("a").count("arrived") == 1 and "broken" not in watched.statuses("a")


def test_a_copy_and_an_older_version_never_arrive(tmp_path: Path, extract: Path, newer: Path) -> None:
    watched = Watched(tmp_path)
    shutil.copytree(newer, watched.folder / "mimic-iv-3.1")
    watched.look()
    shutil.copytree(newer, watched.folder / "copy")
    shutil.copytree(extract, watched.folder / "mimic-iv-2.2")
    said = watched.look()
    assert said["copy"] == "duplicate: its files are those of mimic-iv-3.1, byte for byte"
    assert said["mimic-iv-2.2"] == "older: version 2.2 is lower than 3.1 of mimic-iv-3.1"
    watched.again()
    watched.look()
    assert watched.statuses("copy") == ["waiting", "duplicate"]


def test_of_two_at_once_only_the_newer_arrives(tmp_path: Path, extract: Path, newer: Path) -> None:
    watched = Watched(tmp_path)
    shutil.copytree(extract, watched.folder / "a-mimic-iv-2.2")
    shutil.copytree(newer, watched.folder / "b-mimic-iv-3.1")
    said = watched.look()
    assert said["b-mimic-iv-3.1"].startswith("arrived") and said["a-mimic-iv-2.2"].startswith("older")


def test_of_two_at_once_of_one_version_the_newest_name_is_studied(tmp_path: Path, newer: Path) -> None:
    watched = Watched(tmp_path)
    shutil.copytree(newer, watched.folder / "extract-10")
    other = synthesize(tmp_path / "x", "mimic-iv-3.1", 20, seed=8, rows_per_stay=1).folder
    shutil.copytree(other, watched.folder / "extract-9")
    said = watched.look()
    assert said["extract-9"].startswith("older: arrived together with extract-10")
    assert (watched.landing.ledger.pending() or {})["extract"] == "extract-10"


def test_what_is_overwritten_is_not_pending_until_the_next_extract_is_whole(tmp_path: Path, extract: Path, newer: Path
                                                                            ) -> None:
    watched = Watched(tmp_path)
    place, ledger = watched.folder / "current", watched.landing.ledger
    shutil.copytree(extract, place)
    watched.look()
    first = ledger.pending(str(place)) or {}
    shutil.copytree(newer, place, ignore=shutil.ignore_patterns("chartevents*"), dirs_exist_ok=True)
    assert watched.look()["current"].startswith("waiting: half-copied")
    assert ledger.pending() is None and ledger.pending(str(place)) is None
    shutil.copytree(newer, place, dirs_exist_ok=True)
    watched.look()
    assert (ledger.pending(str(place)) or {})["digest"] != first["digest"]


def test_an_arrival_whose_files_are_back_is_told_and_pending_again(tmp_path: Path, extract: Path) -> None:
    watched = Watched(tmp_path)
    place = watched.folder / "current"
    shutil.copytree(extract, place)
    watched.look()
    file = place / "hosp" / "patients.csv.gz"
    whole, state = file.read_bytes(), file.stat()
    for restore in (lambda: os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns)), lambda: None):
        file.write_bytes(whole[:-3])
        watched.look()
        assert watched.landing.ledger.pending() is None
        file.write_bytes(whole)
        restore()
        assert watched.look()["current"] == "arrived: complete again: the files that arrived before are back"
        assert watched.landing.ledger.pending() is not None
    assert watched.statuses("current").count("arrived") == 3


def test_a_second_study_of_the_folder_is_told_of_the_newest_arrival_once(tmp_path: Path, extract: Path, newer: Path
                                                                        ) -> None:
    first, second = Watched(tmp_path, "study.name=first"), Watched(tmp_path, "study.name=second")
    shutil.copytree(extract, first.folder / "a")
    first.look()
    shutil.copytree(newer, first.folder / "b")
    first.look()
    assert first.statuses("a") == first.statuses("b") == ["waiting", "arrived"]
    second.look()
    second.again()
    second.look()
    assert [(row["extract"], row["status"], row["study"]) for row in second.told] == [("b", "arrived", "second")]
    told = len(first.told)
    first.look()
    assert len(first.told) == told
    ledger = second.landing.ledger
    ledger.add(str(first.folder / "b"), "studied", "champion kept", digest=second.told[0]["digest"], study="first")
    assert ledger.pending(None, "first") is None and (ledger.pending(None, "second") or {})["extract"] == "b"


def test_a_study_of_another_folder_is_not_told(tmp_path: Path, extract: Path) -> None:
    first = Watched(tmp_path, "study.name=first")
    second = Watched(tmp_path, "study.name=second", f"landing.folder={tmp_path / 'elsewhere'}")
    shutil.copytree(extract, first.folder / "a")
    first.look()
    second.look()
    assert second.told == []


def test_two_landing_folders_of_one_workspace_do_not_disturb_each_other(tmp_path: Path, extract: Path, newer: Path
                                                                        ) -> None:
    first = Watched(tmp_path, "study.name=first")
    second = Watched(tmp_path, "study.name=second", f"landing.folder={tmp_path / 'elsewhere'}")
    shutil.copytree(newer, first.folder / "new")
    shutil.copytree(extract, second.folder / "old")
    for _ in range(3):  # in turn, so that each look comes after one of the other folder
        first.look(1)
        second.look(1)
    assert first.statuses("new") == ["waiting", "arrived"] and second.statuses("old") == ["waiting", "arrived"]
    for watched, name in ((first, "new"), (second, "old")):
        assert (watched.landing.ledger.pending() or {})["extract"] == name


def test_an_extract_without_checksums_arrives_when_it_held_still(tmp_path: Path, extract: Path) -> None:
    watched = Watched(tmp_path)
    shutil.copytree(extract, watched.folder / "a", ignore=shutil.ignore_patterns("SHA256SUMS.txt"))
    assert "no SHA256SUMS.txt" in watched.look()["a"]
    watched.settings = (*watched.settings, "landing.stable_seconds=0")
    watched.again()
    assert "complete and new" in watched.look()["a"]


def test_what_the_reader_refuses_is_broken_and_says_why(tmp_path: Path, extract: Path) -> None:
    watched = Watched(tmp_path, "landing.stable_seconds=0")
    without = shutil.ignore_patterns("SHA256SUMS.txt", "labevents*")
    shutil.copytree(extract, watched.folder / "lacking", ignore=without)
    shutil.copytree(extract, watched.folder / "cut", ignore=shutil.ignore_patterns("SHA256SUMS.txt"))
    cut = watched.folder / "cut" / "icu" / "chartevents.csv.gz"
    cut.write_bytes(cut.read_bytes()[:-500])
    (watched.folder / "notes").mkdir()
    (watched.folder / "notes" / "readme.txt").write_text("hello")
    said = watched.look()
    assert "broken" in said["lacking"] and "has no hosp/labevents" in said["lacking"]
    assert "broken" in said["cut"] and "icu/chartevents.csv.gz cannot be unpacked" in said["cut"]
    assert said["notes"].startswith("broken")
    assert [status for name in ("lacking", "cut", "notes") for status in watched.statuses(name)].count("broken") == 3


def test_one_that_is_damaged_in_the_middle_keeps_no_other_from_arriving(tmp_path: Path, extract: Path) -> None:
    watched = Watched(tmp_path, "landing.stable_seconds=0")
    without = shutil.ignore_patterns("SHA256SUMS.txt")
    shutil.copytree(extract, watched.folder / "a-damaged", ignore=without)
    shutil.copytree(extract, watched.folder / "b-whole", ignore=without)
    file = watched.folder / "a-damaged" / "icu" / "chartevents.csv.gz"
    file.write_bytes(damaged_gzip(gzip.decompress(file.read_bytes()) + b"\n" * 100_000))
    said = watched.look()
    assert said["a-damaged"].startswith("broken: icu/chartevents.csv.gz cannot be unpacked")
    assert said["b-whole"].startswith("arrived")


def test_whatever_one_extract_does_to_its_reader_the_others_are_looked_at(
        tmp_path: Path, extract: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(tmp_path, "landing.stable_seconds=0")
    for name in ("a-odd", "b-whole"):
        shutil.copytree(extract, watched.folder / name)

    def digest(session: Session) -> str:
        if session.data is not None and session.data.name == "a-odd":
            raise RuntimeError("of a library")
        return digest_of(session)

    monkeypatch.setattr("flows.landing.digest_of", digest)
    said = watched.look()
    assert said["a-odd"] == "broken: RuntimeError while it was read" and said["b-whole"].startswith("arrived")


def test_a_broken_one_that_is_copied_again_arrives(tmp_path: Path, extract: Path) -> None:
    watched = Watched(tmp_path, "landing.stable_seconds=0")
    shutil.copytree(extract, watched.folder / "a")
    file = watched.folder / "a" / "hosp" / "patients.csv.gz"
    whole = file.read_bytes()
    file.write_bytes(whole[:-3])
    assert watched.look()["a"].startswith("broken")
    file.write_bytes(whole)
    assert watched.look()["a"].startswith("arrived")


def test_a_place_of_a_store_is_watched_like_a_folder(tmp_path: Path, extract: Path, monkeypatch: pytest.MonkeyPatch
                                                     ) -> None:
    from fsspec.implementations.memory import MemoryFileSystem
    from upath import UPath

    root = UPath("memory://landing")
    for path in (path for path in extract.rglob("*") if path.is_file()):
        place = root / "mimic-iv-2.2" / path.relative_to(extract).as_posix()
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
    told: list[dict[str, Any]] = []
    landing = Landing(load("demo", ["cohort.source=mimic_iv", f"paths.workspace={tmp_path}",
                                    "landing.folder=memory://landing"]), told.append)
    asked_anew: list[None] = []
    monkeypatch.setattr(MemoryFileSystem, "invalidate_cache", lambda *_: asked_anew.append(None))
    for _ in range(3):
        landing.look()
    assert len(asked_anew) == 3, "drivers of stores remember what they listed"
    assert told[-1]["status"] == "arrived" and told[-1]["place"] == "memory://landing/mimic-iv-2.2"
    Landing(load("demo", ["cohort.source=mimic_iv", f"paths.workspace={tmp_path}", "study.name=second",
                          "landing.folder=memory://landing"]), told.append).look()
    assert told[-1]["study"] == "second" and told[-1]["place"] == "memory://landing/mimic-iv-2.2"


def test_a_mapping_is_no_part_of_an_extract(monkeypatch: pytest.MonkeyPatch) -> None:
    def digest(**files: str) -> str:
        monkeypatch.setattr("flows.landing.source_files", lambda _: {name.replace("__", "/"): digest
                                                                     for name, digest in files.items()})
        return digest_of(session_of(dump(load("demo"))))

    assert digest(data__a="1", mapping__m="1") == digest(data__a="1", mapping__m="2") != digest(data__a="2")


def test_a_study_that_reads_no_files_has_nothing_to_watch(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="synthetic"):
        Landing(load("demo", [f"paths.workspace={tmp_path}"]), print)


def test_a_landing_folder_that_is_a_file_is_refused_with_a_next_step(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file cannot be written") as caught:
        Watched(tmp_path, f"landing.folder={tmp_path / 'file'}")
    assert "landing.folder" in caught.value.next_step
