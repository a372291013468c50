"""A second site: TJH's file of 110 patients, and any source all of whose stays are test stays."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import polars as pl
import pytest

import tasks.cohort
from configs.load import load
from configs.schema import Cohort as Section
from contracts.errors import ConfigError, DataError, MissingFileError
from contracts.features import catalogue
from ehr import table_one, validity
from ehr.cohort import Cohort, counts, prepare, read, read_source, write
from ehr.compare import compare
from ehr.sources.source import Source
from ehr.sources.tjh import read_tjh
from ehr.sources.tjh_workbook import EXTERNAL, EXTERNAL_FILE, FILE
from evaluation.baselines import tabulate
from models.expert.batches import read_stays, tensors
from operations.sources import TJH
from prompts.evidence import cases, render
from support.tjh_sheet import patients, record, write_sheet
from tasks.stage import Work

DATA = Path(os.environ.get("EAG_RL_DATA", "no-such-folder"))
HEADER = ["PATIENT_ID", "RE_DATE", *(EXTERNAL.labs or ()), "Admission time", "Discharge time", "outcome"]
SECTION = Section(source="tjh_external", split="external")
real = pytest.mark.skipif(not (DATA / "tjh" / EXTERNAL_FILE).is_file(),
                          reason=f"EAG_RL_DATA names no folder with tjh/{EXTERNAL_FILE}")


def sheet(tmp_path: Path, rows: list | None = None, columns: list[str] | None = None) -> Path:
    return write_sheet(tmp_path / EXTERNAL_FILE, rows or patients(24), columns=columns or HEADER)


def source_of(tmp_path: Path, rows: list | None = None, columns: list[str] | None = None) -> Source:
    return read_tjh(sheet(tmp_path, rows, columns), EXTERNAL)


def test_the_file_has_three_labs_no_age_and_no_sex(tmp_path: Path) -> None:
    source = source_of(tmp_path)
    assert source.stays.height == 24 and source.records.height == 48
    assert source.stays["age"].null_count() == 24 and set(source.stays["sex"]) == {"unknown"}
    assert set(source.events["feature"]) == {"Lactate dehydrogenase"}
    steps = {step.rule: step for step in source.attrition}
    assert steps["lab of the catalogue that the file does not have: never measured"].found == 70
    assert "age and gender are not in the file: unknown" in steps
    assert not any("2019-nCoV" in rule and "values of" in rule for rule in steps)


def test_equal_numbers_in_the_two_files_are_other_people(tmp_path: Path) -> None:
    whole = read_tjh(write_sheet(tmp_path / FILE, patients(24)))
    external = source_of(tmp_path)
    for column in ("stay_id", "patient_id"):
        assert not set(whole.stays[column]) & set(external.stays[column])


def test_the_main_file_is_not_taken_for_it_nor_it_for_the_main_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"73 unknown columns"):
        source_of(tmp_path, columns=[*HEADER, "age", "gender", *(
            name for name in catalogue("tjh").names if name not in HEADER), "2019-nCoV nucleic acid detection"])
    with pytest.raises(DataError, match="cohort.source=tjh_external"):
        read_tjh(sheet(tmp_path))


def test_the_same_cleaning_applies(tmp_path: Path) -> None:
    rows = [*patients(24), record(None, 5.0, 1, {"Lactate dehydrogenase": -1, "(%)lymphocyte": 12.5})]
    values = source_of(tmp_path, rows).events
    assert values.filter(pl.col("value") < 0).is_empty()
    assert values.filter(pl.col("feature") == "(%)lymphocyte")["value"].to_list() == [12.5]


def test_a_missing_file_names_this_file(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError) as caught:
        read_tjh(tmp_path, EXTERNAL)
    assert EXTERNAL_FILE in caught.value.rule


def test_all_its_stays_are_test_stays_and_the_folder_is_read_again(tmp_path: Path) -> None:
    sheet(tmp_path)
    cohort = prepare(read_source(SECTION, 42, tmp_path), SECTION, 42)
    assert set(cohort.stays["split"]) == {"test"} and cohort.stays["age"].null_count() == 24
    folder = write(cohort, tmp_path / "cohort")
    again = read(folder)
    assert again.stays.equals(cohort.stays) and again.scaling["age"].sd == 1.0
    assert compare(cohort, again).stays.is_empty()


def test_any_source_can_be_a_second_site() -> None:
    section = Section(split="external")
    cohort = prepare(read_source(section, 42, None), section, 42)
    assert set(cohort.stays["split"]) == {"test"} and cohort.stays.height == section.synthetic.stays
    assert not [one for one in validity.check(cohort) if one.level == "error"]


def test_the_external_file_cannot_be_split_for_training() -> None:
    with pytest.raises(ConfigError, match="set split=external"):
        load("demo", ["cohort.source=tjh_external"])


def test_unknown_age_and_sex_are_the_training_mean_to_models_and_a_word_in_prompts(tmp_path: Path) -> None:
    sheet(tmp_path)
    cohort = prepare(read_source(SECTION, 42, tmp_path), SECTION, 42)
    folder = write(cohort, tmp_path / "cohort")
    assert read_stays(folder).batch.static.tolist() == [[0.0, 0.0]] * 24
    scaling = {name: {"mean": 1.0, "sd": 2.0, "low": -9.0, "high": 99.0} for name in (*catalogue("tjh").names, "age")}
    known = cohort.stays.with_columns(pl.lit(41.0).alias("age"), pl.lit("female").alias("sex"))
    static = tensors(known, cohort.filled, catalogue("tjh").names, scaling).static
    assert static[0].tolist() == [20.0, -1.0]
    table = tabulate(cohort.stays, cohort.filled, scaling)
    assert table.names[-2:] == ("Age", "Sex") and np.isnan(table.values[:, -2:]).all()
    assert tabulate(known, cohort.filled, scaling).values[0, -2:].tolist() == [41.0, 0.0]
    prompts = load("tjh_external").prompts
    first = cases(cohort.stays, cohort.filled, catalogue("tjh"))[0]
    text = render(first, catalogue("tjh"), prompts, catalogue("tjh").names).text
    assert text.splitlines()[0] == "Age & Sex: unknown" and len(text.splitlines()) == 3
    half = cases(known.with_columns(pl.lit("unknown").alias("sex")), cohort.filled, catalogue("tjh"))[0]
    assert render(half, catalogue("tjh"), prompts, ()).text.startswith("Age & Sex: 41 years, sex unknown\n")


def test_a_label_told_by_the_number_of_days_is_a_warning_where_nothing_is_trained(tmp_path: Path) -> None:
    told = []
    for number in range(1, 25):
        days = (0.0, 1.0) if number <= 12 else (0.0, 1.0, 2.0, 3.0, 4.0)
        told += [record(number, day, int(number > 12), {"Lactate dehydrogenase": 300}) for day in days]
    sheet(tmp_path, told)
    cohort = prepare(read_source(SECTION, 42, tmp_path), SECTION, 42)
    found = [one for one in validity.check(cohort) if "number of daily records" in one.value]
    assert [one.level for one in found] == ["warning"] and "shows its end" in found[0].next_step


def test_the_cohort_stage_writes_it_with_a_table_one(tmp_path: Path) -> None:
    sheet(tmp_path)
    config = load("tjh_external")
    session = cast(Any, SimpleNamespace(config=config, data=tmp_path, workspace=tmp_path))
    out = tmp_path / "out"
    out.mkdir()
    made = tasks.cohort.cohort.make(Work("cohort", session, {}, {}, out, out, "run"))
    assert list(made.sources) == [EXTERNAL_FILE] and made.metrics["test.patients"] == 24.0
    assert "| sex, n (%) | unknown |" in (out / table_one.FILES[0]).read_text(encoding="utf-8")
    assert json.loads((out / "meta.json").read_text(encoding="utf-8"))["split"] == "external"


def test_the_public_source_brings_the_file_beside_the_main_one() -> None:
    assert {FILE, EXTERNAL_FILE} <= {file.path for file in TJH.files}


@pytest.fixture(scope="module")
def real_cohort() -> Cohort:
    section = load("tjh_external").cohort
    return prepare(read_source(section, 42, DATA), section, 42)


@real
@pytest.mark.real_data
def test_the_real_file_gives_the_counts_of_its_description(real_cohort: Cohort) -> None:
    table = counts(real_cohort)
    total = table["total"]
    assert (total["patients"], total["visits"], total["positive"], total["negative"]) == (110, 391, 13, 97)
    published = {file.path: file.sha256 for file in TJH.files}
    assert real_cohort.meta["files"] == {EXTERNAL_FILE: published[EXTERNAL_FILE]}
    assert table["splits"]["test"] == total and table["splits"]["train"]["patients"] == 0
    days = real_cohort.stays["days"]
    assert (int((days == 1).sum()), int((days >= 2).sum()), days.max()) == (8, 102, 19)
    by_label = real_cohort.stays.group_by("label").agg(pl.col("days").mean()).sort("label")["days"]
    assert [round(mean, 1) for mean in by_label] == [2.7, 10.2]
    steps = {(step["rule"], step["unit"]): step for step in table["attrition"]}
    assert steps["patients in the file", "patients"]["found"] == 110
    assert steps["id cell merged with the one above: filled", "rows"]["found"] == 757 - 110
    assert steps["row without RE_DATE: dropped", "rows"] | {"rule": ""} == {
        "rule": "", "unit": "rows", "found": 0, "dropped": 0, "kept": 757}
    assert steps["dated after the discharge (rows of 3 patients): kept", "rows"]["found"] == 4
    labs = real_cohort.visits.select(EXTERNAL.labs or ())
    assert real_cohort.filled.drop_nulls(EXTERNAL.labs).height > 0
    assert [name for name in catalogue("tjh").names if real_cohort.visits[name].count()] == [
        name for name in catalogue("tjh").names if name in labs.columns]


@real
@pytest.mark.real_data
def test_the_number_of_days_tells_the_end_in_the_real_file_and_is_said(real_cohort: Cohort) -> None:
    found = [one for one in validity.check(real_cohort) if one.level == "error"]
    warned = [one for one in validity.check(real_cohort) if "number of daily records" in one.value]
    assert found == [] and len(warned) == 1
