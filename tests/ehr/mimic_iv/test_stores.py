"""An extract in a store, and parsed tables in one, give what folders of this machine give."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from configs.schema import Cohort
from contracts.errors import StorageError
from ehr.sources.drafts import drafted
from ehr.sources.mimic_iv import ingest as ingestion
from ehr.sources.mimic_iv.ingest import WHOLE, ingest
from ehr.sources.mimic_iv.layout import open_extract
from ehr.sources.mimic_iv.source import read_mimic_iv
from ehr.sources.parts import PARTS
from ehr.sources.places import place_of, state_of
from ehr.sources.source import Source
from support.mimic_extract import write_extract

SECTION = Cohort(source="mimic_iv", min_visits=1)


@pytest.fixture
def store() -> Iterator[Path]:
    yield place_of("memory://bucket")
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


def upload(folder: Path, place: Path) -> Path:
    for file in folder.rglob("*.gz"):
        target = place / file.relative_to(folder).as_posix()
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    return place


def read(folder: Path, cache: Path, parsed: Path | None = None) -> Source:
    checksums = {name: hashlib.sha256(table.path.read_bytes()).hexdigest()
                 for name, table in open_extract(folder).tables.items()}
    return read_mimic_iv(folder, SECTION, cache, checksums, parsed=parsed)


def test_an_extract_and_parsed_tables_in_a_store_give_the_same_source(tmp_path: Path, store: Path) -> None:
    raw = write_extract(tmp_path / "raw")
    here = read(raw, tmp_path / "cache")
    there = read(upload(raw, store / "raw"), tmp_path / "other", store / "parsed")
    assert there.days.equals(here.days) and there.stays.equals(here.stays)
    assert there.attrition == here.attrition
    assert not list((tmp_path / "other").glob("chartevents-*"))
    assert len(list((store / "parsed").glob("*/part-*.parquet"))) == 2 * PARTS


def test_a_table_in_a_store_counts_only_when_all_of_it_is_there(store: Path) -> None:
    sent, true, folder = [], MemoryFileSystem._open, store / "table"

    def broken(self: MemoryFileSystem, path: str, mode: str = "rb", **more: object) -> object:
        sent.append(path.rpartition("/")[2])
        if sent[-1] == "part-031.parquet":
            raise OSError("no space left in the bucket")
        return true(self, path, mode, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryFileSystem, "_open", broken)
        with pytest.raises(StorageError, match="no space left in the bucket"), drafted(folder, WHOLE) as draft:
            for name in (WHOLE, "part-000.parquet", "part-031.parquet"):
                (draft / name).write_bytes(b"x")
    assert sent == ["part-000.parquet", "part-031.parquet"] and not (folder / WHOLE).exists()


def test_two_at_once_read_a_table_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = open_extract(write_extract(tmp_path / "raw")).tables["icu/chartevents"]
    made = []
    true = ingestion._ingest

    def slow(*arguments: object) -> None:
        made.append(threading.get_ident())
        time.sleep(0.3)
        true(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ingestion, "_ingest", slow)
    threads = [threading.Thread(target=ingest, args=(table, "a" * 64, tmp_path / "cache", 1.0)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.is_dir()] == [
        f"chartevents-{'a' * 16}-{ingestion.items().digest[:8]}-{ingestion.FORMAT}"]


def test_the_state_of_a_file_is_another_once_it_is_written_again(tmp_path: Path, store: Path) -> None:
    for file in (tmp_path / "file", store / "file"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"one")
        before = state_of(file)
        assert state_of(file) == before
        time.sleep(0.02)
        file.write_bytes(b"two")
        assert state_of(file) != before
