"""ICU stays of an extract: patients, admissions and icustays joined, judged by rule, and labelled.

In: the three small tables. Out: `Stays`: one row a stay that passed every rule, the rows set aside with their reason,
and an attrition step a rule. Times are the extract's own (shifted by patient); nothing depends on the order of rows.
"""

from __future__ import annotations

import polars as pl

from contracts.errors import DataError
from ehr.attrition import Step
from ehr.sources.icu_stays import Judge, Outcome, Stays, Unit, chosen, judged, labelled
from ehr.sources.mimic_iv.layout import NEEDED, Extract, Table
from ehr.sources.places import readable

KEYS = {"hosp/patients": "subject_id", "hosp/admissions": "hadm_id", "icu/icustays": "stay_id"}
UNREAD = "an identifier, number or date that cannot be read"
# Ages above 89 are given as 91 by PhysioNet.
OLDEST = 91
_TIMES = {"admittime", "dischtime", "deathtime", "intime", "outtime", "dod"}
_WORDS = {"gender", "anchor_year_group"}


def read_stays(extract: Extract, outcome: Outcome, unit: Unit) -> Stays:
    """Reads, joins, judges and labels.

    Raises:
        DataError: a table cannot be read or is empty, or no stay is left.
    """
    judge = Judge("icu/icustays")
    read = {name: _read(extract.tables[name]) for name in KEYS}
    patients, admissions, stays = (_distinct(rows, name, judge) for name, rows in read.items())
    judge.steps.append(Step("ICU stay in the file", "stays", stays.height, 0, stays.height))
    joined = (stays.join(admissions.drop("subject_id"), on="hadm_id", how="left")
              .join(patients, on="subject_id", how="left"))
    joined = judge.rule(joined, pl.col("admittime").is_null(), "its admission is not in hosp/admissions")
    joined = judge.rule(joined, pl.col("anchor_year").is_null(), "its patient is not in hosp/patients")
    joined = judged(joined, judge)
    joined = judge.rule(joined, ~pl.col("gender").is_in(["M", "F"]), "gender is neither M nor F")
    entries = read["icu/icustays"].select("subject_id", "hadm_id", "intime")
    return chosen(labelled(_aged(joined), entries, outcome, judge), unit, judge, stays.height)


def _aged(stays: pl.DataFrame) -> pl.DataFrame:
    age = pl.col("anchor_age") + pl.col("intime").dt.year() - pl.col("anchor_year")
    return stays.with_columns(age.clip(upper_bound=OLDEST).cast(pl.Float64).alias("age"),
                              pl.col("gender").replace_strict({"M": "male", "F": "female"}).alias("sex"))


def _distinct(rows: pl.DataFrame, name: str, judge: Judge) -> pl.DataFrame:
    """What `_read` gave, without the rows that cannot be read and those that repeat."""
    keys, left = rows["unread"].drop_nulls(), rows.filter(pl.col("unread").is_null()).drop("unread")
    judge.aside(name, keys, UNREAD)
    judge.steps.append(Step(f"{name}: {UNREAD}: set aside", "rows", keys.len(), keys.len(), left.height))
    return judge.distinct(left, name, KEYS[name])


def _read(table: Table) -> pl.DataFrame:
    """The needed columns of a small table, typed, and `unread`: the key as written of rows that lack key or patient, or
    hold a field that cannot be read (null then); null of all others."""
    needed = list(NEEDED[table.name])
    try:
        if table.format == "parquet":
            raw = pl.read_parquet(readable(table.path), columns=needed).select(pl.all().cast(pl.String))
        else:
            raw = pl.read_csv(readable(table.path), infer_schema_length=0, encoding="utf8")
            raw = raw.rename(str.strip).select(needed)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{table.path.name}: {str(error).splitlines()[0][:200]}", "a whole CSV file, a field a column",
                        "copy the file again, or correct that row") from error
    if not raw.height:
        raise DataError(f"{table.path.name} has a header and no row", "a table has rows", "copy the file again")
    typed = raw.with_columns(_typed(name) for name in needed)
    unread = [typed[name].is_null() & raw[name].fill_null("").str.strip_chars().ne("") for name in needed]
    key = KEYS[table.name]
    bad = pl.any_horizontal(*unread, typed[key].is_null(), typed["subject_id"].is_null())
    return typed.with_columns(pl.when(bad).then(raw[key].fill_null("")).alias("unread"))


def _typed(name: str) -> pl.Expr:
    column = pl.col(name).str.strip_chars()
    if name in _WORDS:
        return column
    if name in _TIMES:
        text = column.str.replace("T", " ", literal=True)
        return pl.coalesce(text.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", strict=False, time_unit="us"),
                           text.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us"))).alias(name)
    return column.cast(pl.Int64, strict=False).alias(name)
