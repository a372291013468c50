"""ICU stays of an extract: patients, admissions and icustays joined, judged by rule, and labelled.

In: the three small tables. Out: `Stays`: one row a stay that passed every rule, the rows set aside with their reason,
and an attrition step a rule. Times are the extract's own (shifted by patient); nothing depends on the order of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import polars as pl

from contracts.errors import DataError
from ehr.attrition import Step
from ehr.sources.mimic_iv.layout import NEEDED, Extract, Table

Outcome = Literal["mortality", "readmission"]
Unit = Literal["all", "first", "last"]
READMISSION_DAYS = 30
# Ages above 89 are given as 91 by PhysioNet.
OLDEST = 91
_TIMES = {"admittime", "dischtime", "deathtime", "intime", "outtime", "dod"}
_WORDS = {"gender", "anchor_year_group"}


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


def read_stays(extract: Extract, outcome: Outcome, unit: Unit) -> Stays:
    """Reads, joins, judges and labels.

    Raises:
        DataError: a table cannot be read or is empty, or no stay is left.
    """
    judge = _Judge()
    patients = judge.distinct(_read(extract.tables["hosp/patients"], judge), "hosp/patients", "subject_id")
    admissions = judge.distinct(_read(extract.tables["hosp/admissions"], judge), "hosp/admissions", "hadm_id")
    stays = judge.distinct(_read(extract.tables["icu/icustays"], judge), "icu/icustays", "stay_id")
    judge.steps.append(Step("ICU stay in the file", "stays", stays.height, 0, stays.height))
    joined = (stays.join(admissions.drop("subject_id"), on="hadm_id", how="left")
              .join(patients, on="subject_id", how="left").sort("subject_id", "intime", "stay_id"))
    joined = judge.rule(joined, pl.col("admittime").is_null(), "its admission is not in hosp/admissions")
    joined = judge.rule(joined, pl.col("anchor_year").is_null(), "its patient is not in hosp/patients")
    joined = judge.rule(joined, pl.col("outtime").is_null(), "no outtime")
    joined = judge.rule(joined, pl.col("outtime") <= pl.col("intime"), "outtime not after intime")
    joined = judge.rule(joined, pl.col("dischtime") <= pl.col("admittime"), "dischtime not after admittime")
    joined = judge.rule(joined, pl.col("intime") > pl.col("dischtime"), "begins after its admission ends")
    overlap = pl.col("intime") < pl.col("outtime").cum_max().shift().over("subject_id")
    joined = judge.rule(joined, overlap.fill_null(False), "begins before an earlier stay of the patient ends")
    joined = judge.rule(joined, ~pl.col("gender").is_in(["M", "F"]), "gender is neither M nor F")
    labelled = _labelled(joined, outcome, judge)
    chosen = judge.choose(labelled, unit)
    if not chosen.height:
        raise DataError(f"none of {stays.height} ICU stays is left", "a cohort holds stays",
                        "look at the reasons in the quarantine table, and at the extract")
    return Stays(chosen, judge.table(), tuple(judge.steps))


def _labelled(stays: pl.DataFrame, outcome: Outcome, judge: _Judge) -> pl.DataFrame:
    """Adds age, sex and label.

    mortality: the patient dies during this admission (hospital_expire_flag). readmission: the patient enters an ICU
    again within 30 days after the discharge of this admission; a further ICU stay of the same admission is none
    (method, section 1); admissions that end in death are left out.
    """
    age = pl.col("anchor_age") + pl.col("intime").dt.year() - pl.col("anchor_year")
    stays = stays.with_columns(pl.min_horizontal(age, pl.lit(OLDEST)).cast(pl.Float64).alias("age"),
                               pl.col("gender").replace_strict({"M": "male", "F": "female"}).alias("sex"))
    if outcome == "mortality":
        stays = judge.rule(stays, ~pl.col("hospital_expire_flag").is_in([0, 1]), "hospital_expire_flag is not 0 or 1")
        label = pl.col("hospital_expire_flag")
    else:
        died = (pl.col("hospital_expire_flag") == 1) | (pl.col("deathtime") <= pl.col("dischtime"))
        # Later stays are looked for among all stays, before any is left out.
        entries = stays.select("subject_id", pl.col("intime").alias("entry")).sort("entry")
        stays = stays.sort("dischtime").join_asof(entries, left_on="dischtime", right_on="entry", by="subject_id",
                                                  strategy="forward", check_sortedness=False)
        stays = judge.rule(stays, died.fill_null(False), "readmission: the admission ends in death", aside=False)
        label = ((pl.col("entry") - pl.col("dischtime")) <= pl.duration(days=READMISSION_DAYS)).fill_null(False)
    return stays.select(
        pl.col("stay_id").alias("stay"), pl.col("subject_id").alias("subject"), pl.col("hadm_id").alias("hadm"),
        "intime", "outtime", "admittime", "dischtime", "deathtime", "age", "sex",
        label.cast(pl.Int8).alias("label")).sort("stay")


def _read(table: Table, judge: _Judge) -> pl.DataFrame:
    """The needed columns of a small table, typed; rows that cannot be typed are set aside."""
    needed = list(NEEDED[table.name])
    try:
        if table.format == "parquet":
            raw = pl.read_parquet(table.path, columns=needed).select(pl.all().cast(pl.String))
        else:
            raw = pl.read_csv(table.path, infer_schema_length=0, encoding="utf8").rename(str.strip).select(needed)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{table.path.name}: {str(error).splitlines()[0][:200]}", "a whole CSV file, a field a column",
                        "copy the file again, or correct that row") from error
    if not raw.height:
        raise DataError(f"{table.path.name} has a header and no row", "a table has rows", "copy the file again")
    typed = raw.with_columns(_typed(name) for name in needed)
    unread = pl.any_horizontal(typed[name].is_null() & raw[name].fill_null("").str.strip_chars().ne("")
                               for name in needed)
    key = {"hosp/patients": "subject_id", "hosp/admissions": "hadm_id", "icu/icustays": "stay_id"}[table.name]
    bad = pl.select(unread).to_series() | typed[key].is_null() | typed["subject_id"].is_null()
    judge.aside(table.name, raw.filter(bad)[key], "an identifier, number or date that cannot be read")
    return typed.filter(~bad)


def _typed(name: str) -> pl.Expr:
    column = pl.col(name).str.strip_chars()
    if name in _WORDS:
        return column
    if name in _TIMES:
        text = column.str.replace("T", " ", literal=True)
        return pl.coalesce(text.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", strict=False, time_unit="us"),
                           text.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us"))).alias(name)
    return column.cast(pl.Int64, strict=False).alias(name)


class _Judge:
    """Applies rules to rows; notes what each removed."""

    def __init__(self) -> None:
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
        """Drops stays that break a rule; they go to quarantine but where the rule is one of the study."""
        broken = stays.filter(breaks)
        left = stays.filter(~breaks)
        if aside:
            self.aside("icu/icustays", broken["stay_id"], reason)
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


def patients_of(stays: pl.DataFrame) -> Sequence[int]:
    """Subjects with a stay."""
    return stays["subject"].unique().sort().to_list()
