"""`eag-rl data check` of a MIMIC-IV extract that is not the demo: its layout, and the checksums it came with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from contracts.errors import MissingFileError
from ehr.extracts.write import synthesize
from flows.check_data import check_data, check_source
from operations.arrivals import SUMS
from support.meds_dataset import write_dataset
from support.tiny_study import eag_rl, last_json


@pytest.fixture
def extract(tmp_path: Path) -> Path:
    return synthesize(tmp_path / "mimic-iv-3.1", "mimic-iv-3.1", 3, rows_per_stay=50).folder


def test_a_whole_extract_is_ok_file_by_file(extract: Path) -> None:
    seen: list[str] = []
    checks = check_data(extract, lambda done, total, name: seen.append(f"{done}/{total} {name}"))
    assert {check.status for check in checks} == {"ok"}
    assert "version 3.1" in checks[0].found and len(checks) == 1 + len(seen)
    assert any("chartevents" in check.name for check in checks)


def test_it_may_lie_one_folder_below(extract: Path) -> None:
    assert {check.status for check in check_data(extract.parent)} == {"ok"}


def test_an_altered_file_is_named(extract: Path) -> None:
    table = extract / "hosp" / "patients.csv.gz"
    table.write_bytes(table.read_bytes() + b"\0")
    failed = [check for check in check_data(extract) if check.status == "fail"]
    assert [check.name for check in failed] == ["mimic-iv: hosp/patients.csv.gz"]
    assert "copy the file again" in failed[0].remedy


def test_without_checksums_it_is_a_warning(extract: Path) -> None:
    (extract / SUMS).unlink()
    assert [check.status for check in check_data(extract)] == ["ok", "warn"]


@pytest.mark.slow
def test_a_missing_table_ends_the_command_with_what_to_do(extract: Path) -> None:
    (extract / "icu" / "icustays.csv.gz").unlink()
    done = eag_rl("data", "check", str(extract), "--json", check=False)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert "icu/icustays" in str(last_json(done))


def test_the_doctor_takes_an_extract_that_is_not_the_demo(extract: Path, tmp_path: Path) -> None:
    done = eag_rl("doctor", "--config", "mimic_iv_mortality", "--set", f"paths.data={extract.parent}", "--set",
                  f"paths.workspace={tmp_path / 'w'}", "--json", check=False)
    (found,) = [check for check in json.loads(done.stdout) if check["name"].startswith("data")]
    assert found["status"] == "ok" and "mimic_iv in" in found["found"]


def test_the_doctor_takes_a_meds_dataset_and_names_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingFileError, match="data/"):
        check_source("meds", tmp_path / "empty")
    write_dataset(tmp_path / "meds")
    (found,) = check_source("meds", tmp_path / "meds")
    assert found.status == "ok" and found.name == "meds"
