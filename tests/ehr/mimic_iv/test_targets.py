"""Outcomes beside the label: remaining days, phenotypes, what is set aside, and that nothing else sees them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from configs.schema import Cohort, MimicIv
from contracts.errors import ContractError, DataError
from contracts.features import catalogue
from contracts.frames import TARGETS
from ehr.cohort import prepare, read, write
from ehr.sources.mimic_iv import phenotypes as module
from ehr.sources.mimic_iv.layout import open_extract
from ehr.sources.mimic_iv.phenotypes import FORMS, VERSIONS, phenotypes, plain
from ehr.sources.mimic_iv.source import read_mimic_iv
from ehr.sources.mimic_iv.stays import read_stays
from ehr.sources.mimic_iv.targets import DIAGNOSES, coded_phenotypes, read_targets
from ehr.sources.source import Source, checked, opaque_ids
from support.mimic_extract import ROWS, write_extract

ROOT = Path(__file__).resolve().parents[3]
# The days on which the stays of the small extract have records.
RECORDED = pl.DataFrame({"stay": [31, 31, 32, 33, 33], "date": pl.Series(
    ["2150-01-01", "2150-01-02", "2150-01-22", "2160-02-01", "2160-02-02"]).str.to_date()})
# Renal failure, essential hypertension; nothing for admission 22; shock and septicemia.
CODED = ["11,21,1,5849,9", "11,21,2,4019,9", "11,22,1,Z8546,10", "12,23,1,R6521,10"]


def targets(folder, section=None, days=RECORDED):
    extract = open_extract(folder)
    return read_targets(extract, read_stays(extract, "mortality", "all").stays, days, section or MimicIv())


def coded(folder, rows, limit=1.0, **how):
    extract = open_extract(write_extract(folder, {DIAGNOSES: rows}, **how))
    return coded_phenotypes(extract.tables[DIAGNOSES], read_stays(extract, "mortality", "all").stays, limit)


def remaining(found):
    return dict(found.rows.filter(pl.col("name") == "remaining_days").select("stay", "value").iter_rows())


def present(found, stay):
    rows = found.rows.filter((pl.col("stay") == stay) & (pl.col("value") == 1.0))
    return [name.removeprefix("phenotype: ") for name in rows["name"]]


def step(found, words):
    one, = (step for step in found.steps if words in step.rule)
    return one.found, one.dropped, one.kept


def source_of(folder: Path, cache: Path, section: Cohort) -> Source:
    checksums = {name: hashlib.sha256(table.path.read_bytes()).hexdigest()
                 for name, table in open_extract(folder).tables.items()}
    return read_mimic_iv(folder, section, cache, checksums)


# Stays: 31 lasts 2 days (from 6:00), 32 3 days (from 0:00), 33 2 days and 8 hours (from 2:00; dies at its end).
@pytest.mark.parametrize(("window", "hours", "days", "early"), [
    ("first_hours", 24, {31: 1.0, 32: 2.0, 33: 4 / 3}, 0), ("first_hours", 60, {31: 0.0, 32: 0.5, 33: 0.0}, 2),
    ("first_hours", 0.5, {31: 2 - 0.5 / 24, 32: 3 - 0.5 / 24, 33: 7 / 3 - 0.5 / 24}, 0),
    ("before_outcome", 12, {31: 0.0, 32: 0.0, 33: 0.5}, 2), ("whole", 24, {31: 0.25, 32: 1.0, 33: 10 / 24}, 0)])
def test_remaining_days_run_from_the_end_of_the_window(tmp_path, window, hours, days, early):
    found = targets(write_extract(tmp_path), MimicIv(window=window, hours=hours))
    assert remaining(found) == pytest.approx(days)
    assert step(found, "ends before its window") == (early, 0, 3)


def test_a_last_record_on_the_day_of_leaving_leaves_no_days(tmp_path):
    days = RECORDED.with_columns(pl.col("date") + pl.duration(days=1))
    found = targets(write_extract(tmp_path), days=days)
    assert remaining(found) == {31: 0.0, 32: 0.0, 33: 0.0}
    assert step(found, "ends before its window") == (2, 0, 3)  # stay 32 leaves at midnight


def test_a_stay_without_a_record_has_no_remaining_days(tmp_path):
    found = targets(write_extract(tmp_path), days=RECORDED.filter(pl.col("stay") != 32))
    assert set(remaining(found)) == {31, 33}
    assert step(found, "without a daily record") == (1, 1, 2)


def test_phenotypes_are_those_of_the_admission(tmp_path):
    found = coded(tmp_path, CODED)
    assert found.rows.height == 3 * 25 and found.rows["value"].is_in([0.0, 1.0]).all()
    assert present(found, 31) == ["Acute and unspecified renal failure", "Essential hypertension"]
    assert present(found, 32) == []
    assert present(found, 33) == ["Septicemia (except in labor)", "Shock"]
    assert step(found, "row in the file") == (4, 0, 4)
    assert step(found, "code of no phenotype") == (1, 1, 3)


HEART, BREATH = "Congestive heart failure; nonhypertensive", "Respiratory failure; insufficiency; arrest (adult)"


@pytest.mark.parametrize(("code", "version", "name"), [
    ("428.0", 9, HEART), (" 4280 ", 9, HEART), ("i50.9", 10, HEART), ("I509   ", " 10 ", HEART),
    ("e11.65", 10, "Diabetes mellitus with complications"), ("E11.9", 10, "Diabetes mellitus without complication"),
    ("25002", 9, "Diabetes mellitus with complications"), ("250.00", 9, "Diabetes mellitus without complication"),
    ("038.9", 9, "Septicemia (except in labor)"), ("v45.11", 9, "Chronic kidney disease"),
    ("5184", 9, "Other lower respiratory disease"), ("518.81", 9, BREATH)])
def test_codes_are_read_however_they_are_written(tmp_path, code, version, name):
    assert present(coded(tmp_path, [f"11,21,1,{code},{version}"]), 31) == [name]


@pytest.mark.parametrize(("code", "version"), [
    ("I490", 10), ("4275", 9), ("41410", 9), ("I253", 10), ("J9500", 9), ("389", 9), ("E1165", 9), ("V5867", 9)])
def test_neighbours_of_a_group_and_codes_of_the_other_version_do_not_count(tmp_path, code, version):
    assert present(coded(tmp_path, [f"11,21,1,{code},{version}", "11,21,2,4019,9"]), 31) == ["Essential hypertension"]


@pytest.mark.parametrize(("row", "reason"), [
    ("11,21,2,4280,11", "icd_version is not 9 or 10"), ("11,21,2,4280,", "icd_version is not 9 or 10"),
    ("11,21,2,4280,ten", "icd_version is not 9 or 10"), ("11,21,2,,9", "no icd_code"), ("11,21,2, . ,9", "no icd_code"),
    ("11,21,2,I10,9", "icd_code has not the form of its version"), ("11,21,2,42,9", "icd_code has not the form"),
    ("11,21,2,4280,10", "icd_code has not the form"), ("11,,2,4280,9", "an identifier that cannot be read"),
    ("x,21,2,4280,9", "an identifier that cannot be read"), ("12,21,2,4280,9", "its admission is another patient's")])
def test_rows_that_cannot_be_used_go_to_quarantine(tmp_path, row, reason):
    found = coded(tmp_path, [CODED[0], row, *CODED[1:]])
    assert found.aside.select("table", "key").rows() == [(DIAGNOSES, "1")]
    assert reason in found.aside["reason"][0] and found.aside["text"][0].startswith("code ")
    assert step(found, found.aside["reason"][0]) == (1, 1, 4)
    assert present(found, 31) == ["Acute and unspecified renal failure", "Essential hypertension"]


def test_too_much_quarantine_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"1 of 5 rows go to quarantine: no icd_code \(1\); the first is data row 4"):
        coded(tmp_path, [*CODED, "11,21,3,,9"], limit=0.1)


def test_an_admission_that_nobody_coded_has_no_phenotypes(tmp_path):
    found = coded(tmp_path, [*CODED[:2], CODED[3], "11,22,1,,9"])
    assert found.rows["stay"].unique().sort().to_list() == [31, 33]
    assert step(found, "without a readable diagnosis") == (25, 25, 50)


def test_diagnoses_of_admissions_without_a_stay_are_passed_over(tmp_path):
    assert step(coded(tmp_path, [*CODED, "11,77,1,4280,9"]), "without a stay") == (1, 1, 4)


def test_without_the_table_there_are_no_phenotypes_and_a_step_says_so(tmp_path):
    found = targets(write_extract(tmp_path))
    assert found.rows["name"].unique().to_list() == ["remaining_days"]
    assert step(found, "hosp/diagnoses_icd is not there: no phenotypes") == (75, 75, 0)
    assert found.aside.height == 0


@pytest.mark.parametrize("how", [{"packed": False}, {"end": "\r\n", "start": b"\xef\xbb\xbf"}])
def test_forms_of_the_file_change_nothing(tmp_path, how):
    assert coded(tmp_path / "odd", CODED, **how).rows.equals(coded(tmp_path / "plain", CODED).rows)


def test_parquet_is_read_alike_where_codes_are_text(tmp_path):
    folder = write_extract(tmp_path / "x", {DIAGNOSES: CODED}, packed=False)
    path, stays = folder / f"{DIAGNOSES}.csv", read_stays(open_extract(folder), "mortality", "all").stays
    rows = coded_phenotypes(open_extract(folder).tables[DIAGNOSES], stays, 1.0).rows
    typed = pl.read_csv(path, schema_overrides={"icd_code": pl.String})
    path.unlink()
    typed.write_parquet(path.with_suffix(".parquet"))
    assert coded_phenotypes(open_extract(folder).tables[DIAGNOSES], stays, 1.0).rows.equals(rows)
    typed.head(1).with_columns(pl.col("icd_code").cast(pl.Int64)).write_parquet(path.with_suffix(".parquet"))
    with pytest.raises(DataError, match="icd_code is Int64"):
        coded_phenotypes(open_extract(folder).tables[DIAGNOSES], stays, 1.0)


def test_a_table_of_diagnoses_that_is_empty_or_lacks_a_column_is_refused(tmp_path):
    with pytest.raises(DataError, match="a header and no row"):
        coded(tmp_path / "empty", [])
    folder = write_extract(tmp_path / "odd", {DIAGNOSES: CODED}, columns={DIAGNOSES: "subject_id,hadm_id,seq_num,"
                                                                                       "code,icd_version"})
    with pytest.raises(DataError, match="no column 'icd_code'; unknown columns: code"):
        open_extract(folder)


def test_there_are_the_25_phenotypes_of_the_benchmark():
    kinds = list(phenotypes().types.values())
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"acute": 13, "mixed": 5, "chronic": 7}
    assert set(phenotypes().rules["version"]) == set(VERSIONS) == set(FORMS)
    covered = phenotypes().rules.filter("belongs").select("name", "version").unique()
    assert covered.height == 50


def test_a_code_of_icd_9_belongs_to_one_phenotype_at_most():
    # As in CCS; every prefix stands for the codes that begin with it.
    prefixes = phenotypes().rules.filter(pl.col("version") == 9).select("version", pl.col("prefix").alias("code"))
    codes = pl.concat([prefixes.with_columns(pl.col("code") + tail) for tail in ("", "0", "00", "01", "9")])
    assert not phenotypes().of_codes(codes).select("version", "code").is_duplicated().any()


def test_codes_are_made_plain():
    told = pl.DataFrame({"code": [" 428.0 ", "i50.9", None, "038.9"]}).select(plain("code")).to_series()
    assert told.to_list() == ["4280", "I509", "", "0389"]


@pytest.mark.parametrize(("entry", "words"), [
    ("{type: acute, icd9: 584}", "prefixes in quotes"), ('{type: acute, icd9: "58.4"}', "prefixes in quotes"),
    ('{type: sudden, icd9: "584"}', "of type 'sudden'"), ('{type: acute, icd9: "584 584"}', "stands twice")])
def test_a_wrong_list_of_phenotypes_is_refused(tmp_path, monkeypatch, entry, words):
    (tmp_path / "phenotypes.yaml").write_text(f"phenotypes:\n  Odd:\n    {entry}\n")
    monkeypatch.setattr(module, "_FILE", tmp_path / "phenotypes.yaml")
    with pytest.raises(ContractError, match=words):
        module.phenotypes.__wrapped__()


@pytest.mark.parametrize("outcome", ["mortality", "readmission"])
def test_diagnoses_change_targets_and_nothing_else(tmp_path, outcome):
    section = Cohort(source="mimic_iv", outcome=outcome)
    plain_source = source_of(write_extract(tmp_path / "plain"), tmp_path / "cache", section)
    more = source_of(write_extract(tmp_path / "coded", {DIAGNOSES: CODED}), tmp_path / "cache", section)
    assert more.stays.equals(plain_source.stays) and more.days.equals(plain_source.days)
    assert more.targets.filter(pl.col("name") == "remaining_days").equals(plain_source.targets)
    assert "diagnoses_icd.csv.gz" in more.files and "diagnoses_icd.csv.gz" not in plain_source.files
    assert TARGETS.check(more.targets).height == more.stays.height * 26


def test_targets_have_the_identifiers_of_their_stays(tmp_path):
    source = source_of(write_extract(tmp_path / "x", {DIAGNOSES: CODED}), tmp_path / "cache", Cohort(source="mimic_iv"))
    died = source.stays.filter(pl.col("label") == 1)["stay_id"]
    shocked = source.targets.filter((pl.col("name") == "phenotype: Shock") & (pl.col("value") == 1.0))["stay_id"]
    assert shocked.to_list() == died.to_list() == opaque_ids("mimic-iv-stay", [33])


def test_targets_of_unknown_stays_are_refused(tmp_path):
    source = source_of(write_extract(tmp_path / "x"), tmp_path / "cache", Cohort(source="mimic_iv"))
    stranger = source.targets.with_columns(pl.lit("nobody").alias("stay_id")).head(1)
    with pytest.raises(ContractError, match="targets of 1 stays"):
        checked(replace(source, targets=stranger), catalogue("mimic_iv"))


def test_a_cohort_keeps_the_targets_of_its_stays_on_disk(tmp_path):
    places = {"hosp/patients": 1, "hosp/admissions": 2, "icu/icustays": 3, "icu/chartevents": 3, DIAGNOSES: 2}
    tables = {name: _twelve(CODED if name == DIAGNOSES else ROWS[name], count) for name, count in places.items()}
    section = Cohort(source="mimic_iv", min_visits=2, test_share=0.4, validation_share=0.3)
    source = source_of(write_extract(tmp_path / "x", tables), tmp_path / "cache", section)
    assert source.targets["stay_id"].n_unique() == 36
    cohort = prepare(source, section, 1)
    assert cohort.stays.height == 24
    again = read(write(cohort, tmp_path / "cohort"))
    assert again.targets.equals(cohort.targets) and again.targets.height == 24 * 26
    assert set(again.targets["stay_id"]) == set(cohort.stays["stay_id"])


def _twelve(rows: list[str], identifiers: int) -> list[str]:
    """Twelve patients for each one: a number stands before the first columns, which identify."""
    fields = [row.split(",") for row in rows if '"' not in row]
    return [",".join([*(f"{number}{field}" for field in row[:identifiers]), *row[identifiers:]])
            for number in range(1, 13) for row in fields]


def test_nothing_but_targets_reads_diagnoses_or_targets():
    """Diagnoses are coded at discharge: what sees them in a prompt, a feature or a reward sees the end of the stay."""
    rooms = ("contracts", "ehr", "prompts", "serving", "rewards", "search", "models", "evaluation", "tasks", "flows")
    texts = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
             for room in rooms for path in (ROOT / room).rglob("*.py")}
    own = "ehr/sources/mimic_iv/"
    writer = {path for path in texts if path.startswith("ehr/extracts/")}

    def holding(pattern: str) -> set[str]:
        return {path for path, text in texts.items() if re.search(pattern, text)} - writer

    assert holding("diagnoses_icd") == {own + "layout.py", own + "targets.py"}
    assert holding(r"mimic_iv\.phenotypes|mimic_iv import .*phenotypes") == {own + "targets.py"}
    assert holding(r"mimic_iv\.targets|mimic_iv import .*targets") == {own + "source.py"}
    assert holding(r"\.targets\b(?!\s*import)|targets\.parquet|\bTARGETS\b") == {
        "contracts/frames.py", "ehr/cohort.py", "ehr/folder.py", "ehr/sources/source.py"}
