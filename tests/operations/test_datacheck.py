"""A data folder is described file by file: complete, damaged, altered, of another shape."""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path

import pytest

from contracts.errors import MissingFileError
from operations.checks import Check
from operations.datacheck import check
from operations.sources import TJH_TRAIN
from support.damaged_gzip import damaged_gzip


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {result.name: result for result in checks}


def table(folder: Path, path: str, text: str) -> Path:
    place = folder / "mimic-iv-demo-2.2" / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(gzip.compress(text.encode()))
    return place


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError):
        check(tmp_path / "nowhere")


def test_a_folder_without_a_source_says_how_to_get_one(tmp_path: Path) -> None:
    (only,) = check(tmp_path)
    assert only.status == "fail" and "eag-rl data fetch tjh" in only.remedy


def test_missing_files_are_named(tmp_path: Path) -> None:
    table(tmp_path, "hosp/patients.csv.gz", "subject_id,gender,anchor_age,dod\n1,F,50,\n")
    source = by_name(check(tmp_path))["mimic-demo"]
    assert source.status == "fail" and "icu/chartevents.csv.gz" in source.found and "hosp/patients" not in source.found


def test_another_release_of_the_right_shape_is_a_warning(tmp_path: Path) -> None:
    table(tmp_path, "hosp/patients.csv.gz", "subject_id,gender,anchor_age,dod\n1,F,50,\n")
    found = by_name(check(tmp_path))["mimic-demo: hosp/patients.csv.gz"]
    assert found.status == "warn" and "1 rows x 4 columns" in found.found and "not the published" in found.found


def test_a_missing_column_fails_and_is_named(tmp_path: Path) -> None:
    table(tmp_path, "hosp/patients.csv.gz", "subject_id,sex,anchor_age,dod\n1,F,50,\n")
    found = by_name(check(tmp_path))["mimic-demo: hosp/patients.csv.gz"]
    assert found.status == "fail" and "'gender'" in found.found


@pytest.mark.parametrize("content", [b"subject_id,gender\n", gzip.compress(b"subject_id,gender\n" * 999)[:-20], b"",
                                     damaged_gzip(b"subject_id,gender\n" * 999)],
                         ids=["plain", "truncated", "empty", "damaged in the middle"])
def test_a_file_that_is_no_whole_gzip_fails(tmp_path: Path, content: bytes) -> None:
    table(tmp_path, "hosp/patients.csv.gz", "").write_bytes(content)
    found = by_name(check(tmp_path))["mimic-demo: hosp/patients.csv.gz"]
    assert found.status == "fail" and found.remedy


def test_a_file_that_is_no_workbook_fails(tmp_path: Path) -> None:
    (tmp_path / "tjh").mkdir()
    (tmp_path / "tjh" / TJH_TRAIN).write_text("<html>")
    found = by_name(check(tmp_path))[f"tjh: {TJH_TRAIN}"]
    assert found.status == "fail" and "not readable as an Excel workbook" in found.found


@pytest.fixture
def real() -> Path:
    if "EAG_RL_DATA" not in os.environ:
        pytest.skip("EAG_RL_DATA names no folder of real data")
    return Path(os.environ["EAG_RL_DATA"])


@pytest.mark.real_data
def test_the_real_tjh_files_are_the_published_ones(real: Path) -> None:
    results = [result for result in check(real) if result.name.startswith("tjh")]
    assert len(results) == 3 and {result.status for result in results} == {"ok"}
    assert "6120 rows x 81 columns" in by_name(results)[f"tjh: {TJH_TRAIN}"].found


@pytest.mark.real_data
def test_the_folder_of_one_source_will_do(real: Path) -> None:
    assert by_name(check(real / "tjh"))["tjh"].status == "ok"


@pytest.mark.real_data
def test_the_wrong_workbook_under_a_right_name_fails(real: Path, tmp_path: Path) -> None:
    (tmp_path / "tjh").mkdir()
    shutil.copy(real / "tjh" / "time_series_test_110_preprocess_en.xlsx", tmp_path / "tjh" / TJH_TRAIN)
    found = by_name(check(tmp_path))[f"tjh: {TJH_TRAIN}"]
    assert found.status == "fail" and "'age'" in found.found
