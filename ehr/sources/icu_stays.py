"""ICU stays of any hospital, judged by rule and labelled; when their measurements may be used.

In: stays joined with their admission, age and sex, each with an identifier. Out: `Stays`: one row a stay that passed
every rule, the rows set aside with their reason, and an attrition step a rule. Nothing depends on the order of rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import polars as pl

from configs.schema import IcuStays
from contracts.errors import DataError
from ehr.attrition import Step
from ehr.sources.source import opaque_ids

Outcome = Literal["mortality", "readmission"]
Unit = Literal["all", "first", "last"]
READMISSION_DAYS = 30


@dataclass(frozen=True)
class Stays:
    """S stays.

    Attributes:
        stays: stay, subject, hadm (Int64), intime, outtime, admittime, dischtime, deathtime (Datetime us; deathtime may
            be null), age [years], sex, label (Int8); by stay.
        aside: table, key, reason of each row set aside.
        steps: attrition, in order.
    """

    stays: pl.DataFrame = field(repr=False)
    aside: pl.DataFrame = field(repr=False)
    steps: tuple[Step, ...]


def judged(stays: pl.DataFrame, judge: Judge) -> pl.DataFrame:
    """Sets stays aside that lack a time, or whose times contradict each other.

    Args:
        stays: subject_id, stay_id, intime, outtime, admittime, dischtime and more; no null in admittime.
    """
    stays = stays.sort("subject_id", "intime", "stay_id")
    for time in ("intime", "outtime", "dischtime"):
        stays = judge.rule(stays, pl.col(time).is_null(), f"no {time}")
    stays = judge.rule(stays, pl.col("outtime") <= pl.col("intime"), "outtime not after intime")
    stays = judge.rule(stays, pl.col("dischtime") <= pl.col("admittime"), "dischtime not after admittime")
    stays = judge.rule(stays, pl.col("intime") > pl.col("dischtime"), "begins after its admission ends")
    overlap = pl.col("intime") < pl.col("outtime").cum_max().shift().over("subject_id")
    return judge.rule(stays, overlap.fill_null(False), "begins before an earlier stay of the patient ends")


def labelled(stays: pl.DataFrame, entries: pl.DataFrame, outcome: Outcome, judge: Judge) -> pl.DataFrame:
    """Adds the label; S rows as `Stays.stays` holds them.

    mortality: the patient dies during this admission (hospital_expire_flag). readmission: the patient enters an ICU
    again within 30 days after the discharge of this admission; a further ICU stay of the same admission is none
    (method, section 1); admissions that end in death are left out.

    Args:
        stays: as `judged` left them, with hadm_id, deathtime, hospital_expire_flag, age and sex.
        entries: subject_id, hadm_id, intime of all ICU stays as they were read: one that is set aside, e.g. since it
            has not ended yet, is a readmission all the same.
    """
    if outcome == "mortality":
        stays = judge.rule(stays, ~pl.col("hospital_expire_flag").is_in([0, 1]), "hospital_expire_flag is not 0 or 1")
        label = pl.col("hospital_expire_flag")
    else:
        died = (pl.col("hospital_expire_flag") == 1) | (pl.col("deathtime") <= pl.col("dischtime"))
        stays = judge.rule(stays, died.fill_null(False), "readmission: the admission ends in death", aside=False)
        label = pl.col("stay_id").is_in(_followed(stays, entries).implode())
    return stays.select(
        pl.col("stay_id").alias("stay"), pl.col("subject_id").alias("subject"), pl.col("hadm_id").alias("hadm"),
        "intime", "outtime", "admittime", "dischtime", "deathtime", "age", "sex",
        label.cast(pl.Int8).alias("label")).sort("stay")


def _followed(stays: pl.DataFrame, entries: pl.DataFrame) -> pl.Series:
    """Stays whose patient enters an ICU in another admission, within the time after the discharge."""
    later = entries.select("subject_id", pl.col("hadm_id").alias("other"), pl.col("intime").alias("entry"))
    pairs = stays.select("stay_id", "subject_id", "hadm_id", "dischtime").join(later, on="subject_id")
    since = pl.col("entry") - pl.col("dischtime")
    return pairs.filter(pl.col("other").ne_missing(pl.col("hadm_id")),
                        since.is_between(pl.duration(), pl.duration(days=READMISSION_DAYS)))["stay_id"].unique()


def chosen(stays: pl.DataFrame, unit: Unit, judge: Judge, found: int) -> Stays:
    """The stays of the unit, with what was set aside.

    Args:
        found: stays in the data, for the message.

    Raises:
        DataError: no stay is left.
    """
    kept = judge.choose(stays, unit)
    if not kept.height:
        raise DataError(f"none of {found} ICU stays is left", "a cohort holds stays",
                        "look at the reasons in the quarantine table, and at the extract")
    return Stays(kept, judge.table(), tuple(judge.steps))


def windows_of(stays: pl.DataFrame, section: IcuStays) -> pl.DataFrame:
    """stay, subject, begin, end [s]: when a measurement may be used."""
    begin, end = pl.col("intime"), pl.col("outtime")
    hours = pl.duration(hours=section.hours)
    if section.window == "first_hours":
        end = pl.min_horizontal(end, begin + hours)
    elif section.window == "before_outcome":
        end = pl.min_horizontal(end, pl.coalesce("deathtime", "dischtime") - hours)
    return stays.select("stay", "subject", begin.dt.epoch("s").alias("begin"), end.dt.epoch("s").alias("end"))


def slot_of(outcome: Outcome, section: IcuStays) -> str:
    """Names the stays and windows of these settings, whatever the extract."""
    hours = "" if section.window == "whole" else f"-{section.hours:g}"
    return f"{outcome}-{section.unit}-{section.window}{hours}"


def contract_stays(stays: pl.DataFrame, source: str) -> pl.DataFrame:
    """Contract STAYS without split, in the order of `stays`; a stay lasts from intime to outtime.

    Args:
        source: what makes the opaque identifiers those of this source ("mimic-iv").
    """
    return stays.select(
        pl.Series("stay_id", opaque_ids(f"{source}-stay", stays["stay"])),
        pl.Series("patient_id", opaque_ids(f"{source}-patient", stays["subject"])), "age", "sex",
        pl.col("intime").alias("admitted_at"), pl.col("outtime").alias("discharged_at"), "label")


class Judge:
    """Applies rules to rows; notes what each removed.

    Args:
        table: what quarantine calls the table of the stays.
    """

    def __init__(self, table: str) -> None:
        self._table = table
        self.steps: list[Step] = []
        self._aside: list[pl.DataFrame] = []

    def aside(self, table: str, keys: pl.Series, reason: str) -> None:
        """Sets rows aside by their key."""
        if keys.len():
            self._aside.append(pl.DataFrame({"table": [table] * keys.len(), "key": keys.cast(pl.String).fill_null(""),
                                             "reason": [reason] * keys.len()}))

    def distinct(self, rows: pl.DataFrame, table: str, key: str) -> pl.DataFrame:
        """Drops rows that repeat as a whole; sets all rows aside whose key repeats with other values."""
        once = rows.unique(maintain_order=True)
        repeated = once.filter(pl.col(key).is_duplicated())
        self.aside(table, repeated[key], f"{key} stands twice with different values")
        left = once.filter(~pl.col(key).is_duplicated())
        found = rows.height - left.height
        self.steps.append(Step(f"{table}: row repeats, or its {key} does", "rows", found, found, left.height))
        return left

    def rule(self, stays: pl.DataFrame, breaks: pl.Expr, reason: str, *, aside: bool = True) -> pl.DataFrame:
        """Drops stays that break a rule; they go to quarantine but where the rule is one of the study.

        Args:
            breaks: what cannot be said (null) breaks the rule.
        """
        breaks = breaks.fill_null(True)
        broken, left = stays.filter(breaks), stays.filter(~breaks)
        if aside:
            self.aside(self._table, broken["stay_id"], reason)
        self.steps.append(Step(f"stay: {reason}: {'set aside' if aside else 'dropped'}", "stays", broken.height,
                               broken.height, left.height))
        return left

    def choose(self, stays: pl.DataFrame, unit: Unit) -> pl.DataFrame:
        """All stays, or each patient's first or last."""
        if unit == "all":
            return stays
        kept = stays.sort("intime").unique("subject", keep=unit, maintain_order=True).sort("stay")
        lost = stays.height - kept.height
        rule = f"stay that is not the {unit} of its patient: dropped"
        self.steps.append(Step(rule, "stays", lost, lost, kept.height))
        return kept

    def table(self) -> pl.DataFrame:
        """All rows set aside."""
        empty = pl.DataFrame(schema={"table": pl.String, "key": pl.String, "reason": pl.String})
        return pl.concat([empty, *self._aside])
