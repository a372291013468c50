"""Rules and labels of ICU stays: nothing vanishes uncounted, and a readmission is another admission's entry."""

from __future__ import annotations

from datetime import datetime

import polars as pl
import pytest

from ehr.sources.icu_stays import Judge, Outcome, judged, labelled

START = datetime(2150, 1, 1)
NUMBERS, TIMES = ("subject_id", "hadm_id", "stay_id"), ("intime", "outtime", "admittime", "dischtime", "deathtime")
# One patient, in the hospital from day 0 to day 5, in the ICU on the first two.
STAY = {"subject_id": 1, "hadm_id": 10, "stay_id": 100, "intime": 0, "outtime": 2, "admittime": 0, "dischtime": 5,
        "deathtime": None, "hospital_expire_flag": 0, "age": 60.0, "sex": "male"}
ELSEWHERE = {"hadm_id": 11, "stay_id": 101, "intime": 10, "outtime": 12, "admittime": 10, "dischtime": 20}


def stays(*changes: dict[str, object]) -> pl.DataFrame:
    """Stays that differ from STAY; times are in days since START."""
    kinds = {**dict.fromkeys((*NUMBERS, "hospital_expire_flag"), pl.Int64), **dict.fromkeys(TIMES, pl.Int64),
             "age": pl.Float64, "sex": pl.String}
    rows = pl.DataFrame([{**STAY, **change} for change in changes], schema=kinds)
    return rows.with_columns((START + pl.duration(days=pl.col(time))).cast(pl.Datetime("us")).alias(time)
                             for time in TIMES)


def labels(rows: pl.DataFrame, outcome: Outcome, judge: Judge | None = None) -> dict[int, int]:
    """Label of each stay that is left."""
    judge = judge or Judge("icu")
    found = labelled(judged(rows, judge), rows.select("subject_id", "hadm_id", "intime"), outcome, judge)
    return dict(found.select("stay", "label").iter_rows())


@pytest.mark.parametrize(("lack", "reason"), [
    ("intime", "no intime"), ("outtime", "no outtime"), ("dischtime", "no dischtime"),
    ("hospital_expire_flag", "hospital_expire_flag is not 0 or 1")])
def test_a_stay_that_lacks_what_a_rule_asks_for_is_set_aside_and_counted(lack: str, reason: str) -> None:
    judge = Judge("icu")
    assert labels(stays({lack: None}, ELSEWHERE), "mortality", judge) == {101: 0}
    assert judge.table().rows() == [("icu", "100", reason)]
    dropped = {step.rule: (step.found, step.dropped, step.kept) for step in judge.steps if step.dropped}
    assert dropped == {f"stay: {reason}: set aside": (1, 1, 1)}


def test_every_stay_is_left_or_counted_by_one_step() -> None:
    judge = Judge("icu")
    gaps = [{"stay_id": 200 + place, name: None, "subject_id": place} for place, name in enumerate(TIMES[:2])]
    kept = judge.rule(stays({}, *gaps), pl.col("outtime") <= pl.col("intime"), "odd")
    assert (kept["stay_id"].to_list(), judge.steps[0].dropped, judge.table().height) == ([100], 2, 2)


@pytest.mark.parametrize("later", [
    ELSEWHERE, {**ELSEWHERE, "outtime": None}, {**ELSEWHERE, "dischtime": None}, {**ELSEWHERE, "outtime": 3},
    {**ELSEWHERE, "hadm_id": None}, {**ELSEWHERE, "intime": 5}, {**ELSEWHERE, "intime": 35}])
def test_whoever_enters_an_icu_again_is_readmitted_whatever_becomes_of_that_stay(later: dict[str, object]) -> None:
    assert labels(stays({}, later), "readmission")[100] == 1


@pytest.mark.parametrize("later", [
    {**ELSEWHERE, "intime": 36, "outtime": 37, "dischtime": 40}, {**ELSEWHERE, "intime": 4},
    {**ELSEWHERE, "subject_id": 2}, {**ELSEWHERE, "hadm_id": 10}, {**ELSEWHERE, "intime": None}])
def test_another_patient_time_or_part_of_the_same_admission_is_no_readmission(later: dict[str, object]) -> None:
    assert labels(stays({}, later), "readmission")[100] == 0


def test_a_stay_that_begins_when_its_admission_ends_does_not_follow_itself() -> None:
    assert labels(stays({"intime": 5, "outtime": 6}), "readmission") == {100: 0}


def test_of_several_later_entries_one_of_another_admission_is_enough() -> None:
    rows = stays({}, {"stay_id": 102, "intime": 5, "outtime": 6}, ELSEWHERE)
    assert labels(rows, "readmission") == {100: 1, 102: 1, 101: 0}
