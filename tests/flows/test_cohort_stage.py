"""Stage `cohort` writes findings and Table 1 beside the cohort, counts findings, and stops where one is an error."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import tasks.cohort
from configs.schema import Cohort as Section
from configs.schema import Config, MimicIv, Synthetic
from contracts.errors import DataError
from contracts.frames import TARGETS
from ehr import table_one, validity
from ehr.cohort import Cohort, prepare, read
from ehr.extracts.write import synthesize
from ehr.folder import write
from lineage.fingerprint import code_digests
from tasks.stage import Made, Work

CONFIG = Config(cohort=Section(synthetic=Synthetic(stays=60)))


def make(folder: Path, config: Config = CONFIG, data: Path | None = None) -> Made:
    """Runs the stage's function alone, without Prefect and MLflow."""
    session = cast(Any, SimpleNamespace(config=config, data=data, workspace=folder.parent))
    return tasks.cohort.cohort.make(Work("cohort", session, {}, {}, folder, folder, "run"))


@pytest.mark.slow
def test_findings_and_table_one_lie_beside_the_cohort(tmp_path: Path) -> None:
    made = make(tmp_path)
    findings = validity.from_values(json.loads((tmp_path / validity.FILE).read_text(encoding="utf-8"))["findings"])
    assert made.metrics["validity.errors"] == 0.0 and made.metrics["validity.warnings"] == len(findings) > 0
    assert read(tmp_path).stays.height == made.metrics["total.patients"] == 60
    for name in (validity.FILE, *table_one.FILES):
        assert (tmp_path / name).is_file() and name in made.show


@pytest.mark.slow
def test_the_smallest_cell_is_a_setting(tmp_path: Path) -> None:
    section = CONFIG.cohort.model_copy(update={"smallest_cell": 1})
    for name, config in (("usual", CONFIG), ("all", CONFIG.model_copy(update={"cohort": section}))):
        (tmp_path / name).mkdir()
        make(tmp_path / name, config)
    text = {name: (tmp_path / name / "table_one.md").read_text(encoding="utf-8") for name in ("usual", "all")}
    assert "<5" in text["usual"] and "<" not in text["all"]


def test_an_error_stops_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flawed(*arguments: Any) -> Cohort:
        cohort = prepare(*arguments)
        entry = replace(cohort.scaling["Heart Rate"], mean=0.0)
        return replace(cohort, scaling={**cohort.scaling, "Heart Rate": entry})

    monkeypatch.setattr(tasks.cohort, "prepare", flawed)
    with pytest.raises(DataError, match="the scaling of Heart Rate is not that of the training split"):
        make(tmp_path)
    assert not (tmp_path / "meta.json").exists()


def test_changing_a_check_makes_the_cohort_anew() -> None:
    assert {"ehr.leaks", "ehr.balance", "ehr.validity", "ehr.table_one"} <= set(code_digests(["tasks.cohort"]))


def test_extra_files_do_not_hinder_reading(tmp_path: Path) -> None:
    make(tmp_path)
    again = read(tmp_path)
    assert read(write(again, tmp_path / "copy")).stays.equals(again.stays)


def test_a_generated_extract_becomes_a_cohort_with_targets(tmp_path: Path) -> None:
    extract = synthesize(tmp_path / "mimic-iv-3.1", "mimic-iv-3.1", 150, rows_per_stay=1)
    section = Section(source="mimic_iv", outcome="readmission", mimic_iv=MimicIv(window="first_hours", hours=24))
    (tmp_path / "cohort").mkdir()
    made = make(tmp_path / "cohort", Config(cohort=section), extract.folder)
    cohort = read(tmp_path / "cohort")
    assert cohort.targets is not None and "hosp/diagnoses_icd" in made.sources
    names = TARGETS.check(cohort.targets).group_by("name").len()
    assert names.height == 26 and set(names["len"]) == {cohort.stays.height}
    assert cohort.targets["value"].min() == 0.0 and cohort.targets.equals(cohort.targets.sort("stay_id", "name"))
    assert any("of no phenotype" in step.rule for step in cohort.attrition)


@pytest.mark.slow
def test_an_extract_that_changes_while_it_is_read_is_no_cohort_and_leaves_no_parsed_table(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extract = synthesize(tmp_path / "extract", "mimic-iv-3.1", 60, rows_per_stay=40).folder
    config = Config(cohort=Section(source="mimic_iv", mimic_iv=MimicIv()))
    read_source = tasks.cohort.read_source

    def overwritten(*arguments: Any, **named: Any) -> Any:
        found = read_source(*arguments, **named)
        with gzip.open(extract / "icu" / "chartevents.csv.gz", "ab") as stream:
            stream.write(b"\n")
        return found

    (tmp_path / "out").mkdir()
    with monkeypatch.context() as patch, pytest.raises(DataError, match=r"chartevents.* changed while"):
        patch.setattr(tasks.cohort, "read_source", overwritten)
        make(tmp_path / "out", config, extract)
    tables = {folder.name.split("-")[0] for folder in (tmp_path / "cache").iterdir() if folder.is_dir()}
    assert "chartevents" not in tables and "labevents" in tables
    make(tmp_path / "out", config, extract)
    assert "chartevents" in {folder.name.split("-")[0] for folder in (tmp_path / "cache").iterdir()}


@pytest.mark.slow
def test_mortality_on_a_whole_extract_passes_every_check(tmp_path: Path) -> None:
    extract = synthesize(tmp_path / "mimic-iv-3.1", "mimic-iv-3.1", 150, rows_per_stay=1, dirty=0.01)
    (tmp_path / "cohort").mkdir()
    made = make(tmp_path / "cohort", Config(cohort=Section(source="mimic_iv", min_visits=2)), extract.folder)
    assert made.metrics["validity.errors"] == 0.0
    assert (tmp_path / "cohort" / "quarantine.parquet").is_file()


def test_a_generated_cohort_has_no_targets(tmp_path: Path) -> None:
    make(tmp_path)
    assert read(tmp_path).targets is None and not (tmp_path / "targets.parquet").exists()
