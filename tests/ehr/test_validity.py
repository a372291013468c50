"""Each check finds the flaw that is planted for it, and a clean cohort passes all of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from configs.schema import Cohort as Section
from configs.schema import Synthetic
from contracts.errors import ContractError, DataError, StorageError
from contracts.features import catalogue
from contracts.frames import feature_columns
from ehr import balance, leaks
from ehr.aggregate import daily
from ehr.cohort import Cohort, prepare, read_source
from ehr.scale import fit
from ehr.sources.source import Source
from ehr.sources.tjh_workbook import FILE
from ehr.validity import CHECKS, Finding, as_values, check, from_values, require, tally, write
from support.clean_cohort import clean_cohort, clean_source, of_meta, of_stays, of_visits

DATA = Path(os.environ.get("EAG_RL_DATA", "no-such-folder"))
HOUR = "Heart Rate"
Plant = Callable[[Cohort], Cohort]
# As of MIMIC-IV and MEDS: daily records in place of records and events.
IN_DAYS = replace(clean_source(), records=clean_source().records.clear(), events=clean_source().events.clear(),
                  days=daily(clean_source().records, clean_source().events, catalogue("mimic_iv")))


def torn(cohort: Cohort) -> Cohort:
    return of_stays(cohort, pl.when(pl.col("patient_id").is_duplicated() & pl.col("patient_id").is_first_distinct())
                    .then(pl.lit("train")).when(pl.col("patient_id").is_duplicated()).then(pl.lit("test"))
                    .otherwise(pl.col("split")).alias("split"))


def shortened(cohort: Cohort) -> Cohort:
    return of_stays(cohort, (pl.col("admitted_at") + timedelta(hours=2)).alias("discharged_at"))


def late_anchor(cohort: Cohort) -> Cohort:
    return of_meta(cohort, outcome="readmission", label_anchor="admission")


def dying(cohort: Cohort) -> Cohort:
    """Each stay ends on the day of its last record; no more exact without the source."""
    ends = cohort.visits.group_by("stay_id").agg(pl.col("day").max())
    stays = cohort.stays.join(ends, on="stay_id", maintain_order="left").with_columns(
        (pl.col("admitted_at") + pl.duration(hours=24 * pl.col("day") + 3)).alias("discharged_at")).drop("day")
    return replace(cohort, stays=stays)


def by_days(cohort: Cohort) -> Cohort:
    return of_stays(cohort, (pl.col("days") >= 5).cast(pl.Int8).alias("label"))


def by_order(cohort: Cohort) -> Cohort:
    order = pl.col("admitted_at").rank("ordinal").over("patient_id")
    return of_stays(cohort, (order == 2).cast(pl.Int8).alias("label"))


def by_split(cohort: Cohort) -> Cohort:
    return of_stays(cohort, (pl.col("split") == "test").cast(pl.Int8).alias("label"))


def numbered(cohort: Cohort) -> Cohort:
    """Patients numbered by their label, as in a file that lists the survivors first."""
    return of_stays(cohort, (pl.col("label").cast(pl.Int64) * 1000 + pl.int_range(pl.len())).cast(pl.String)
                    .alias("patient_id"))


def hospital_number(cohort: Cohort) -> Cohort:
    return of_stays(cohort, (pl.col("label").cast(pl.Int64) * 1000 + pl.int_range(pl.len())).alias("hadm_id"))


def lettered(cohort: Cohort) -> Cohort:
    letter = pl.when(pl.col("label") == 1).then(pl.lit("a")).otherwise(pl.lit("b"))
    return of_stays(cohort, pl.concat_str(letter, "stay_id").alias("patient_id"))


def ordered(cohort: Cohort) -> Cohort:
    return replace(cohort, stays=cohort.stays.sort("label", "stay_id"))


def fitted_on_all(cohort: Cohort) -> Cohort:
    everyone = cohort.stays.with_columns(pl.lit("train").alias("split"))
    return replace(cohort, scaling=fit(cohort.filled, everyone, feature_columns(cohort.filled), cohort.meta["clip_sd"]))


def in_test(cohort: Cohort) -> pl.Expr:
    return pl.col("stay_id").is_in(cohort.stays.filter(pl.col("split") == "test")["stay_id"].implode())


def shifted(cohort: Cohort) -> Cohort:
    return of_visits(cohort, pl.when(in_test(cohort)).then(pl.col(HOUR) + 60).otherwise(pl.col(HOUR)).alias(HOUR))


def unmeasured_in_test(cohort: Cohort) -> Cohort:
    return of_visits(cohort, pl.when(~in_test(cohort)).then(pl.col(HOUR)).alias(HOUR))


def older_in_test(cohort: Cohort) -> Cohort:
    return of_stays(cohort, pl.when(in_test(cohort)).then(pl.col("age") + 15).otherwise(pl.col("age")).alias("age"))


def sicker_test(cohort: Cohort) -> Cohort:
    often = in_test(cohort) & (pl.int_range(pl.len()) % 4 > 0)
    return of_stays(cohort, pl.when(often).then(1).otherwise(pl.col("label")).cast(pl.Int8).alias("label"))


def unmeasured(cohort: Cohort) -> Cohort:
    return of_visits(cohort, pl.lit(None, dtype=pl.Float64).alias(HOUR))


def filled_before(cohort: Cohort) -> Cohort:
    return of_visits(cohort, pl.col(HOUR).fill_null(80.0) + pl.int_range(pl.len()) % 7)


def constant(cohort: Cohort) -> Cohort:
    return of_visits(cohort, pl.when(pl.col(HOUR).is_not_null()).then(80.0).alias(HOUR))


# check, what is planted, level, words of the value
PLANTED: tuple[tuple[Callable[..., Any], Plant, str, str], ...] = (
    (balance.torn_patients, torn, "error", "patients are in more than one split"),
    (leaks.after_discharge, shortened, "warning", "after the discharge are kept"),
    (leaks.after_discharge, lambda cohort: of_meta(shortened(cohort), drop_after_discharge=True), "error",
     "after the discharge, of"),
    (leaks.revealing_rule, by_days, "error", "the number of daily records: AUROC 1.000"),
    (leaks.revealing_rule, by_order, "error", "the number of the stay within its patient: AUROC 1.000"),
    (leaks.revealing_rule, by_split, "error", "the split: AUROC 1.000"),
    (leaks.label_anchor, late_anchor, "error", "counted from: admission"),
    (leaks.label_anchor, lambda cohort: of_meta(cohort, outcome="readmission"), "warning", "nothing says"),
    (leaks.close_to_outcome, dying, "warning", "to the death"),
    (leaks.carried_by_order, numbered, "error", "patient_id is still a number and tells the label: AUROC 1.00"),
    (leaks.carried_by_order, hospital_number, "error", "hadm_id is still a number"),
    (leaks.carried_by_order, lettered, "warning", "the order of patient_id tells the label: AUROC 1.00"),
    (leaks.carried_by_order, ordered, "warning", "the rows of stays tells the label: AUROC 1.00"),
    (balance.fitted_beyond_training, fitted_on_all, "error", "is not that of the training split"),
    (balance.unlike_splits, shifted, "warning", f"they differ in {HOUR} (p ="),
    (balance.unlike_splits, unmeasured_in_test, "warning", f"they differ in {HOUR} (missing) (p ="),
    (balance.unlike_splits, older_in_test, "warning", "they differ in age"),
    (balance.unlike_prevalence, sicker_test, "warning", "patients with label 1: train"),
    (balance.missing_features, unmeasured, "warning", f"never measured there: {HOUR}"),
    (balance.missing_features, filled_before, "warning", f"measured at every visit: {HOUR}"),
    (balance.constant_features, constant, "warning", f"one value only: {HOUR}"))


@pytest.mark.parametrize(("one", "plant", "level", "words"), PLANTED, ids=[f"{one.__name__}-{words}"
                                                                          for one, _, _, words in PLANTED])
@pytest.mark.parametrize("source", [None, clean_source(), IN_DAYS], ids=["cohort", "with source", "source of days"])
def test_a_planted_flaw_is_found(one: Callable[..., Any], plant: Plant, level: str, words: str,
                                 source: Source | None) -> None:
    flawed = plant(clean_cohort())
    found = [finding for finding in one(flawed, source) if words in finding.value]
    assert [finding.level for finding in found] == [level]
    assert found[0].count > 0 and found[0] in check(flawed, source)


@pytest.mark.parametrize("source", [None, clean_source(), IN_DAYS], ids=["cohort", "with source", "source of days"])
def test_a_clean_cohort_passes_every_check(source: Source | None) -> None:
    assert check(clean_cohort(), source) == ()


def test_every_check_has_a_flaw_planted_for_it() -> None:
    assert {one for one, _, _, _ in PLANTED} == set(CHECKS)


def test_the_order_of_the_source_is_looked_at() -> None:
    source = clean_source()
    bent = replace(source, stays=source.stays.sort("label"))
    assert [finding.value for finding in check(clean_cohort(), bent)] == [
        "the source's stays tells the label: AUROC 1.00"]


def test_records_after_the_discharge_are_counted_exactly_with_the_source() -> None:
    source, cohort = clean_source(), clean_cohort()
    late = source.records.group_by("stay_id", maintain_order=True).agg(pl.col("time").max() + timedelta(days=9)).head(3)
    found = check(cohort, replace(source, records=pl.concat([source.records, late])))
    assert "3 records after the discharge are kept, of 3 stays" in [finding.value for finding in found]


def test_without_records_of_the_source_days_are_counted_and_called_so() -> None:
    for plant, words in ((shortened, "calendar days (at least) after the discharge"), (dying, "by calendar days")):
        found = [finding.value for finding in check(plant(clean_cohort()), IN_DAYS)]
        assert found == [finding.value for finding in check(plant(clean_cohort()), None)]
        assert any(words in value for value in found)


def test_numbers_that_do_not_tell_the_label_are_let_pass() -> None:
    assert check(of_stays(clean_cohort(), pl.int_range(pl.len()).shuffle(seed=1).alias("hadm_id"))) == ()


def test_scaling_is_compared_to_the_ninth_digit() -> None:
    cohort = clean_cohort()
    for factor, count in ((1 + 1e-11, 0), (1 + 1e-7, 1)):
        entry = replace(cohort.scaling[HOUR], mean=cohort.scaling[HOUR].mean * factor)
        bent = replace(cohort, scaling={**cohort.scaling, HOUR: entry})
        assert len(check(bent)) == count
    lacking = {name: entry for name, entry in cohort.scaling.items() if name != HOUR}
    assert tally(check(replace(cohort, scaling=lacking))) == {"errors": 1, "warnings": 0}
    no_clip = {name: value for name, value in cohort.meta.items() if name != "clip_sd"}
    assert "no clip_sd" in check(replace(cohort, meta=no_clip))[0].value


def test_an_outcome_after_the_discharge_is_not_called_close() -> None:
    later = of_meta(dying(clean_cohort()), outcome="readmission", label_anchor="discharge")
    assert check(later) == ()


def test_errors_stop_and_all_are_named() -> None:
    findings = check(of_meta(fitted_on_all(by_days(clean_cohort())), outcome="readmission", label_anchor="admission"))
    with pytest.raises(DataError) as caught:
        require(findings)
    for words in ("the number of daily records", "counted from: admission", "not that of the training split"):
        assert words in caught.value.value
    assert "(3)" in caught.value.value and "(3)" in caught.value.rule and "(3)" in caught.value.next_step


def test_warnings_do_not_stop_and_errors_come_first() -> None:
    require(check(dying(clean_cohort())))
    levels = [finding.level for finding in check(fitted_on_all(dying(clean_cohort())))]
    assert levels == sorted(levels) and set(levels) == {"error", "warning"}


def test_findings_are_written_and_read_back(tmp_path: Path) -> None:
    findings = check(shortened(clean_cohort()))
    values = json.loads(write(findings, tmp_path).read_text(encoding="utf-8"))
    assert from_values(values["findings"]) == findings and as_values(findings) == values["findings"]
    assert tally(findings) == {"errors": 0, "warnings": len(findings)}
    with pytest.raises(ContractError, match="each finding holds"):
        from_values([{"level": "error"}])
    with pytest.raises(StorageError, match=r"cannot write validity\.json"):
        write(findings, tmp_path / "missing")


def test_no_identifier_stands_in_a_finding() -> None:
    cohort = clean_cohort()
    ids = {*cohort.stays["stay_id"], *cohort.stays["patient_id"]}
    text = " ".join(repr(finding) for _, plant, _, _ in PLANTED for finding in check(plant(cohort)))
    assert [one for one in ids if one in text] == []


@pytest.mark.parametrize("stays", [60, 240])
def test_the_embedded_cohort_passes_without_errors(stays: int) -> None:
    section = Section(synthetic=Synthetic(stays=stays))
    source = read_source(section, 42, None)
    findings = check(prepare(source, section, 42), source)
    require(findings)
    assert any("to the death" in finding.value for finding in findings)


@pytest.mark.real_data
@pytest.mark.skipif(not (DATA / "tjh" / FILE).is_file(), reason="EAG_RL_DATA names no folder with tjh/")
@pytest.mark.parametrize(("split", "drop"), [("paper", False), ("stratified", True)])
def test_tjh_passes_without_errors(split: str, drop: bool) -> None:
    section = Section(source="tjh", split=split, drop_after_discharge=drop)
    source = read_source(section, 42, DATA)
    findings: tuple[Finding, ...] = check(prepare(source, section, 42), source)
    require(findings)
    kept = [finding.count for finding in findings if "after the discharge are kept" in finding.value]
    assert kept == ([] if drop else [71])
