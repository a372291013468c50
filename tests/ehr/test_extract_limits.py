"""Writing generated extracts: bounded memory, progress, and what is refused before or while it is written."""

from __future__ import annotations

import errno
from pathlib import Path

import polars as pl
import pytest

import ehr.extracts.write as writing
from contracts.errors import ConfigError, StorageError
from ehr.extracts.layouts import Schema
from ehr.extracts.write import ROWS_AT_ONCE, synthesize


class Heights:
    """A table that keeps nothing but how many rows came at a time."""

    def __init__(self, _path: Path, _schema: Schema, _file_format: str) -> None:
        self.seen: list[int] = []
        ALL_HEIGHTS.append(self.seen)

    def write(self, rows: pl.DataFrame) -> None:
        self.seen.append(rows.height)

    def close(self) -> None:
        pass


ALL_HEIGHTS: list[list[int]] = []


@pytest.mark.parametrize(("stays", "rows"), [(700, 600), (30, 20_000), (1, 900_000)])
def test_no_more_than_a_piece_is_in_memory_however_much_is_written(
        stays: int, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ALL_HEIGHTS.clear()
    monkeypatch.setattr(writing, "open_table", Heights)
    extract = synthesize(tmp_path / "x", "mimic-iv-3.1", stays, rows_per_stay=rows)
    assert extract.rows["icu/chartevents"] > 1.2 * ROWS_AT_ONCE
    assert max(max(seen) for seen in ALL_HEIGHTS) < 1.3 * ROWS_AT_ONCE


def test_progress_counts_stays_to_the_end(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    synthesize(tmp_path / "x", "mimic-iv-3.1", 500, rows_per_stay=1,
               on_progress=lambda done, total, _note: seen.append((done, total)))
    assert len(seen) == 2 and seen[-1] == (500, 500) and seen[0][0] < 500


@pytest.mark.parametrize(("code", "ours"), [(errno.ENOSPC, StorageError), (errno.EIO, OSError)])
def test_a_full_disk_is_named_and_a_broken_one_is_not_hidden(code: int, ours: type[Exception], tmp_path: Path,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_self: Heights, _rows: pl.DataFrame) -> None:
        raise OSError(code, "no luck")

    monkeypatch.setattr(Heights, "write", fail)
    monkeypatch.setattr(writing, "open_table", Heights)
    with pytest.raises(ours, match="no luck"):
        synthesize(tmp_path / "x", "mimic-iv-3.1", 1)


def test_a_folder_inside_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(StorageError, match="Not a directory"):
        synthesize(tmp_path / "file" / "x", "mimic-iv-3.1", 1)


def test_a_folder_that_is_not_empty_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="not empty") as caught:
        synthesize(tmp_path, "mimic-iv-3.1", 5)
    assert "--out" in caught.value.next_step and [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(ConfigError, match="not empty"):
        synthesize(tmp_path / "notes.txt", "mimic-iv-3.1", 5)


@pytest.mark.parametrize(("changed", "words"), [
    ({"layout_name": "mimic-iv-1.0"}, "mimic-iv-2.0, mimic-iv-2.2, mimic-iv-3.0, mimic-iv-3.1"),
    ({"layout_name": "3.1"}, "--layout"), ({"stays": 0}, "--stays"), ({"dirty": 1.5}, "--dirty"),
    ({"dirty": -0.1}, "--dirty"), ({"rows_per_stay": 0}, "--rows-per-stay"), ({"seed": -1}, "--seed"),
    ({"file_format": "xlsx"}, "csv.gz, csv, parquet")])
def test_what_cannot_be_written_is_refused_before_anything_is(changed: dict[str, object], words: str,
                                                              tmp_path: Path) -> None:
    arguments: dict[str, object] = {"layout_name": "mimic-iv-3.1", "stays": 5, **changed}
    with pytest.raises(ConfigError, match=words):
        synthesize(tmp_path / "x", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "x").exists()
