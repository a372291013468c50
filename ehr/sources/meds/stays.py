"""ICU stays of a MEDS dataset: begins paired with ends, each stay with its admission, age, sex and label.

In: the few events that begin or end a stay or admission, births, deaths and sexes. Out: `ehr.sources.icu_stays.Stays`.

MEDS events bear no identifier of the stay, so times decide. A begin is paired with the next later end of its patient,
unless the patient's next begin comes first. A stay belongs to the admission with which it has most time in common.
Death in hospital: where ends of admissions say `died` anywhere in the data, they alone decide; else a death between
the begin of the admission and its end, or at most `death_tolerance_hours` after it. (A death known by its date alone,
at 0:00, on the day of a discharge alive, counts as one in hospital by this second rule.)
"""

from __future__ import annotations

import numpy as np
import polars as pl

from ehr.attrition import Step
from ehr.sources.icu_stays import Judge, Outcome, Stays, Unit, chosen, judged, labelled
from ehr.sources.meds.codes import Codes
from ehr.sources.meds.dataset import Dataset
from ehr.sources.meds.mapping import Mapping
from ehr.sources.parts import mix

TABLE = "stays"


def read_events(dataset: Dataset, codes: Codes) -> pl.DataFrame:
    """subject, time, role of all events that a role of the mapping asks for; repeats are dropped."""
    names = codes.roles["code"].unique().to_list()
    rows = dataset.collect(lambda every: every.filter(pl.col("code").is_in(names)))
    text = pl.col("text").str.strip_chars().str.to_lowercase()
    met = rows.join(codes.roles, on="code").filter(pl.col("wanted").is_null() | text.eq(pl.col("wanted")))
    return met.filter(pl.col("subject").is_not_null()).select("subject", "time", "role").unique()


def read_stays(events: pl.DataFrame, mapping: Mapping, outcome: Outcome, unit: Unit) -> Stays:
    """Pairs, joins, judges and labels.

    Args:
        events: subject, time (Datetime us), role.

    Raises:
        DataError: no stay is left.
    """
    judge = Judge(TABLE)
    stays = _paired(events, "stays", judge).rename({"begin": "intime", "end": "outtime"})
    judge.steps.append(Step("ICU stay in the data", "stays", stays.height, 0, stays.height))
    subject, begin = stays["subject"].to_numpy(), stays["intime"].dt.epoch("us").to_numpy()
    key = mix(mix(subject.view(np.uint64)) + begin.view(np.uint64)).view(np.int64)
    stays = stays.rename({"subject": "subject_id"}).with_columns(pl.Series("stay_id", key))
    stays = judge.rule(stays, pl.col("intime").dt.year() < 1970, "begins before 1970")
    placed = _with_admission(stays, events, mapping, judge)
    entries = placed.select("subject_id", "hadm_id", "intime")
    joined = judge.rule(placed, pl.col("admittime").is_null(), "its admission is not in the data")
    joined = _with_death(joined, events, mapping, judge)
    joined = joined.join(_patients(events, judge), left_on="subject_id", right_on="subject", how="left")
    joined = judge.rule(joined, pl.col("birth").is_null(), "its patient has no birth")
    joined = judge.rule(joined, pl.col("birth") > pl.col("intime"), "its patient is born later")
    joined = judged(joined, judge)
    joined = judge.rule(joined, pl.col("sex").is_null(), "its patient has no sex, or both")
    aged = _aged(joined, mapping.oldest_age)
    return chosen(labelled(aged, entries, outcome, judge), unit, judge, stays.height)


def _paired(events: pl.DataFrame, what: str, judge: Judge) -> pl.DataFrame:
    """subject, begin, end (null: none before the next begin), by subject and begin."""
    def moments(role: str) -> pl.DataFrame:
        return events.filter((pl.col("role") == f"{what}.{role}") & pl.col("time").is_not_null()).select(
            "subject", pl.col("time").alias(role)).sort("subject", role)

    begins, ends = moments("begin"), moments("end")
    pairs = begins.sort("begin").join_asof(ends.sort("end"), left_on="begin", right_on="end", by="subject",
                                           strategy="forward", allow_exact_matches=False, coalesce=False,
                                           check_sortedness=False)
    pairs = pairs.sort("subject", "begin").with_columns(pl.col("begin").shift(-1).over("subject").alias("next"))
    pairs = pairs.select("subject", "begin", pl.when((pl.col("next") < pl.col("end")).fill_null(False)).then(None)
                         .otherwise("end").alias("end"))
    alone = ends.join(pairs, on=["subject", "end"], how="anti").height
    judge.steps.append(Step(f"{what}: end without a begin: dropped", "rows", alone, alone, ends.height - alone))
    return pairs


def _with_admission(stays: pl.DataFrame, events: pl.DataFrame, mapping: Mapping, judge: Judge) -> pl.DataFrame:
    """Adds hadm_id, admittime, dischtime; null where the admission is not in the data."""
    if mapping.admissions is None:
        return stays.with_columns(pl.col("intime").alias("admittime"), pl.col("outtime").alias("dischtime"),
                                  pl.col("stay_id").alias("hadm_id"))
    admissions = _paired(events, "admissions", judge).drop_nulls("end").rename(
        {"begin": "admittime", "end": "dischtime"}).with_row_index("hadm_id").with_columns(
        pl.col("hadm_id").cast(pl.Int64))
    common = (pl.min_horizontal("outtime", "dischtime") - pl.max_horizontal("intime", "admittime")).alias("common")
    best = (stays.join(admissions, left_on="subject_id", right_on="subject").with_columns(common)
            .filter(pl.col("common") > pl.duration()).sort("stay_id", "common", "admittime")
            .unique("stay_id", keep="last").select("stay_id", "hadm_id", "admittime", "dischtime"))
    return stays.join(best, on="stay_id", how="left")


def _with_death(stays: pl.DataFrame, events: pl.DataFrame, mapping: Mapping, judge: Judge) -> pl.DataFrame:
    """Adds deathtime, hospital_expire_flag."""
    deaths = events.filter(pl.col("role") == "death").group_by("subject").agg(pl.col("time").min().alias("death"))
    ended = events.filter(pl.col("role") == "admissions.died").select(
        pl.col("subject").alias("subject_id"), pl.col("time").alias("dischtime"), pl.lit(True).alias("died"))
    joined = (stays.join(deaths, left_on="subject_id", right_on="subject", how="left")
              .join(ended, on=["subject_id", "dischtime"], how="left"))
    latest = pl.col("dischtime") + pl.duration(hours=mapping.death_tolerance_hours)
    inside = pl.col("death").is_between("admittime", latest).fill_null(False)
    died = pl.col("died").fill_null(False) if ended.height else inside
    rule = "`died` of the admission's end" if ended.height else "a death between its begin and end"
    joined = joined.with_columns(died.alias("died"))
    judge.steps.append(Step(f"stay: its admission ends in death, by {rule}", "stays", int(joined["died"].sum()), 0,
                            joined.height))
    return joined.with_columns(pl.col("died").cast(pl.Int64).alias("hospital_expire_flag"),
                               pl.when(pl.col("died") & inside).then("death").alias("deathtime")).drop("death", "died")


def _patients(events: pl.DataFrame, judge: Judge) -> pl.DataFrame:
    """subject, birth, sex (null where it is unknown or contradictory)."""
    births = events.filter((pl.col("role") == "birth") & pl.col("time").is_not_null()).group_by("subject").agg(
        pl.col("time").min().alias("birth"), pl.len().alias("births"))
    twice = births.filter(pl.col("births") > 1).height
    judge.steps.append(Step("patient with several births: the first counts", "patients", twice, 0, births.height))
    sexes = events.filter(pl.col("role").is_in(["female", "male"])).select("subject", "role").unique()
    sexes = sexes.group_by("subject").agg(pl.col("role").first().alias("sex"), pl.len().alias("sexes"))
    sexes = sexes.filter(pl.col("sexes") == 1).select("subject", "sex")
    return births.select("subject", "birth").join(sexes, on="subject", how="left")


def _aged(stays: pl.DataFrame, oldest: float | None) -> pl.DataFrame:
    """Adds the age in whole years at the begin of the stay."""
    begin, birth = pl.col("intime").dt, pl.col("birth").dt
    before = (begin.month() < birth.month()) | ((begin.month() == birth.month()) & (begin.day() < birth.day()))
    age = (begin.year() - birth.year() - before.cast(pl.Int32)).cast(pl.Float64)
    return stays.with_columns((age if oldest is None else pl.min_horizontal(age, pl.lit(oldest))).alias("age"))
