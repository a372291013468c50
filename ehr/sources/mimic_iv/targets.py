"""Outcomes of ICU stays beside the label: remaining length of stay, and phenotypes of the admission.

In: stays, their daily records, and hosp/diagnoses_icd where the extract has it. Out: `Targets`: one row a stay and
name.

- `remaining_days`: from the end of the observation window to outtime, never below 0. `cohort.mimic_iv.window` says
  where the window ends: `first_hours`: at intime + hours; `before_outcome`: hours before death or discharge from the
  hospital; `whole`: with the last calendar day that has a record (then nearly always 0: little to predict). A stay
  without a daily record has none. Death ends a stay as discharge does; whoever models lengths has to tell them apart.
- `phenotype: <name>`: 1 if a diagnosis of the stay's admission belongs to the phenotype (`phenotypes.yaml`), else 0. A
  stay whose admission has no readable diagnosis has none: nobody coded it, which is not the same as health.

Diagnoses are coded at discharge, for the whole admission: they look ahead. So they may only ever be targets, never
features; nothing else reads this table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import polars as pl

from configs.schema import MimicIv
from contracts.errors import DataError
from ehr.attrition import Step
from ehr.sources.mimic_iv.layout import OPTIONAL, Extract, Table
from ehr.sources.mimic_iv.phenotypes import FORMS, phenotypes, plain
from ehr.sources.places import readable

REMAINING = "remaining_days"
PHENOTYPE = "phenotype: "
DIAGNOSES = "hosp/diagnoses_icd"
_DAY_US = 86_400_000_000
_ASIDE = {"table": pl.String, "key": pl.String, "reason": pl.String, "text": pl.String}


@dataclass(frozen=True)
class Targets:
    """Outcomes of S stays.

    Attributes:
        rows: stay (Int64), name, value (Float64); by stay and name.
        aside: table, key (number of the row, first data row 0), reason, text of each diagnosis set aside.
        steps: attrition.
    """

    rows: pl.DataFrame = field(repr=False)
    aside: pl.DataFrame = field(repr=False)
    steps: tuple[Step, ...]


def read_targets(extract: Extract, stays: pl.DataFrame, days: pl.DataFrame, section: MimicIv) -> Targets:
    """All targets that the extract allows.

    Args:
        stays: of `Stays`. days: of `Days`; stay and date are looked at.

    Raises:
        DataError: the table of diagnoses cannot be read, is empty, or too much of it goes to quarantine.
    """
    left, steps = remaining_days(stays, days, section)
    if DIAGNOSES not in extract.tables:
        count = stays.height * len(phenotypes().types)
        absent = Step(f"{DIAGNOSES} is not there: no phenotypes", "values", count, count, 0)
        return Targets(left, pl.DataFrame(schema=_ASIDE), (*steps, absent))
    coded = coded_phenotypes(extract.tables[DIAGNOSES], stays, section.quarantine_limit)
    return Targets(pl.concat([left, coded.rows]).sort("stay", "name"), coded.aside, (*steps, *coded.steps))


def remaining_days(stays: pl.DataFrame, days: pl.DataFrame, section: MimicIv) -> tuple[pl.DataFrame, tuple[Step, ...]]:
    """stay, name, value [days] for each stay with a daily record (see the module's header), and attrition."""
    last = days.group_by("stay").agg(pl.col("date").max().alias("last"))
    known = stays.join(last, on="stay", how="inner").sort("stay")
    hours = pl.duration(hours=section.hours)
    if section.window == "first_hours":
        end = pl.col("intime") + hours
    elif section.window == "before_outcome":
        end = pl.coalesce("deathtime", "dischtime") - hours
    else:
        end = pl.col("last").cast(pl.Datetime("us")) + pl.duration(days=1)
    value = (pl.col("outtime") - end).dt.total_microseconds() / _DAY_US
    rows = known.select("stay", pl.lit(REMAINING).alias("name"), value.alias("value"))
    early, lost = rows.filter(pl.col("value") < 0).height, stays.height - rows.height
    return rows.with_columns(pl.col("value").clip(lower_bound=0.0)), (
        Step(f"{REMAINING}: stay without a daily record: none", "values", lost, lost, rows.height),
        Step(f"{REMAINING}: stay ends before its window does: 0", "values", early, 0, rows.height))


def coded_phenotypes(table: Table, stays: pl.DataFrame, limit: float) -> Targets:
    """0 or 1 for each phenotype and each stay whose admission has a readable diagnosis.

    Args:
        limit: largest share of the table's rows in quarantine.

    Raises:
        DataError: the table cannot be read, is empty, or too much of it goes to quarantine.
    """
    judged = _judged(_diagnoses(table), stays)
    aside = judged.filter(pl.col("reason") != "")
    _check_share(table, aside, judged.height, limit)
    here = judged.filter(pl.col("reason") == "").join(stays.select("hadm").unique(), on="hadm", how="semi")
    known = phenotypes()
    groups = known.of_codes(here)
    hits = here.join(groups, on=["version", "code"]).select("hadm", "name").unique().with_columns(value=pl.lit(1.0))
    coded = stays.select("stay", "hadm").join(here.select("hadm").unique(), on="hadm", how="semi")
    rows = coded.join(pl.DataFrame({"name": list(known.types)}), how="cross").join(
        hits, on=["hadm", "name"], how="left").select("stay", (pl.lit(PHENOTYPE) + pl.col("name")).alias("name"),
                                                      pl.col("value").fill_null(0.0)).sort("stay", "name")
    ungrouped = here.join(groups, on=["version", "code"], how="anti").height
    steps = [*_row_steps(aside, judged.height, here.height),
             Step(f"{DIAGNOSES}: code of no phenotype: passed over", "rows", ungrouped, ungrouped,
                  here.height - ungrouped)]
    lost, width = stays.height - coded.height, len(known.types)
    steps.append(Step("phenotypes: admission without a readable diagnosis: none", "values", lost * width, lost * width,
                      rows.height))
    return Targets(rows, _quarantine(aside), tuple(steps))


def _diagnoses(table: Table) -> pl.DataFrame:
    """row, subject, hadm, version (Int64, null where unreadable), code (see `plain`), and `text` of both as written."""
    needed = OPTIONAL[DIAGNOSES]
    try:
        if table.format == "parquet":
            raw = pl.read_parquet(readable(table.path), columns=list(needed))
        else:
            places = sorted(table.columns.index(name) for name in needed)
            raw = pl.read_csv(readable(table.path), columns=places, infer_schema=False, encoding="utf8")
            raw = raw.rename(str.strip)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{table.path.name}: {str(error).splitlines()[0][:200]}", "a whole CSV file, a field a column",
                        "copy the file again, or correct that row") from error
    if not raw.height:
        raise DataError(f"{table.path.name} has a header and no row", "a table has rows", "copy the file again")
    if raw.schema["icd_code"] != pl.String:
        raise DataError(f"{table.path.name}: icd_code is {raw.schema['icd_code']}",
                        "codes are text: 0389 is septicemia, 389 hearing loss", "write the table again with text codes")
    numbers = (pl.col(name).cast(pl.String).str.strip_chars().cast(pl.Int64, strict=False).alias(ours)
               for name, ours in (("subject_id", "subject"), ("hadm_id", "hadm"), ("icd_version", "version")))
    text = pl.format("code {}, version {}", pl.col("icd_code").fill_null(""),
                     pl.col("icd_version").cast(pl.String).fill_null("")).str.slice(0, 200)
    return raw.with_row_index("row").select("row", *numbers, plain("icd_code").alias("code"), text.alias("text"))


def _judged(rows: pl.DataFrame, stays: pl.DataFrame) -> pl.DataFrame:
    """The rows with `reason`: the first rule that each breaks, "" for none."""
    owners = stays.select("hadm", pl.col("subject").alias("owner")).unique("hadm")
    formed = pl.any_horizontal((pl.col("version") == version) & pl.col("code").str.contains(form)
                               for version, form in FORMS.items())
    reason = (pl.when(pl.col("subject").is_null() | pl.col("hadm").is_null())
              .then(pl.lit("an identifier that cannot be read"))
              .when(~pl.col("version").is_in(list(FORMS)).fill_null(False)).then(pl.lit("icd_version is not 9 or 10"))
              .when(pl.col("code") == "").then(pl.lit("no icd_code"))
              .when(~formed).then(pl.lit("icd_code has not the form of its version"))
              .when((pl.col("owner") != pl.col("subject")).fill_null(False))
              .then(pl.lit("its admission is another patient's")).otherwise(pl.lit("")))
    return rows.join(owners, on="hadm", how="left", maintain_order="left").with_columns(reason.alias("reason"))


def _check_share(table: Table, aside: pl.DataFrame, rows: int, limit: float) -> None:
    if aside.height <= limit * rows:
        return
    worst = ", ".join(f"{reason} ({count})" for reason, count in _reasons(aside))
    raise DataError(f"{table.path.name}: {aside.height} of {rows} rows go to quarantine: {worst}; the first is data "
                    f"row {aside['row'][0]}", f"at most a share of {limit:g} (cohort.mimic_iv.quarantine_limit)",
                    "correct the file, or take it away: then there are no phenotypes")


def _reasons(aside: pl.DataFrame) -> Iterator[tuple[str, int]]:
    yield from aside.group_by("reason").len().sort("len", "reason", descending=[True, False]).iter_rows()


def _row_steps(aside: pl.DataFrame, rows: int, here: int) -> Iterator[Step]:
    left = rows
    yield Step(f"{DIAGNOSES}: row in the file", "rows", rows, 0, rows)
    for reason, count in _reasons(aside):
        left -= count
        yield Step(f"{DIAGNOSES}: {reason}: set aside", "rows", count, count, left)
    yield Step(f"{DIAGNOSES}: row of an admission without a stay: not used", "rows", left - here, left - here, here)


def _quarantine(aside: pl.DataFrame) -> pl.DataFrame:
    return aside.select(pl.lit(DIAGNOSES).alias("table"), pl.col("row").cast(pl.String).alias("key"), "reason", "text")
