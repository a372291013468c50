"""TJH: blood tests of COVID-19 inpatients of Tongji Hospital, Wuhan (Yan et al. 2020, doi:10.1038/s42256-020-0180-7).

In: the workbook of 375 patients, or the external one of 110 (three labs, no age, no sex; other people under the same
numbers). Out: a `Source` of those with at least one dated record (361, 110), and one attrition step for each oddity of
the file. Lab values keep the file's units (Chinese SI practice) but for hemoglobin in g/dL.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from contracts.errors import DataError
from contracts.features import catalogue
from ehr.attrition import Step
from ehr.sources.source import Source, checked, opaque_ids
from ehr.sources.tjh_values import clean
from ehr.sources.tjh_workbook import CONSTANT_LAB, FIXED, MAIN, Layout, Workbook, locate, read
from ehr.splits import paper_split

_CONSTANT = {"age": "age", "sex": "gender", "label": "outcome", "admitted_at": "Admission time",
             "discharged_at": "Discharge time"}


def read_tjh(data: Path | None, layout: Layout = MAIN, *, drop_after_discharge: bool = False,
             with_paper_split: bool = False) -> Source:
    """Reads one of the two workbooks.

    Args:
        data: folder that holds `tjh/<file>` or the file, or the file itself.
        layout: which workbook.
        drop_after_discharge: drop records dated after the patient's discharge (kept and counted otherwise).
        with_paper_split: work out the split of the paper; it is made over all dated patients, so that dropping records
            moves no patient to another split.

    Raises:
        MissingFileError, DataError: the file is missing, is not what it should be, or contradicts itself.
    """
    features = catalogue("tjh")
    path = locate(data, layout)
    workbook = read(path, features, layout)
    _check_patients(path.name, workbook.rows, layout)
    steps = _file_steps(workbook, features.names, layout)
    rows = workbook.rows.filter(pl.col("time").is_not_null())
    fixed = paper_split(rows.group_by("patient").agg(pl.col("label").first())) if with_paper_split else None
    rows, more = _after_discharge(rows, drop_after_discharge)
    rows, cleaning = clean(rows, features.names)
    rows = _with_opaque_ids(rows, layout.source)
    source = Source(
        name=layout.source, catalogue="tjh", stays=_stays(rows),
        records=rows.select("stay_id", "time").sort("stay_id", "time"),
        events=_events(rows, features.names), attrition=(*steps, *more, *cleaning),
        files={path.name: workbook.sha256}, fixed_split=_opaque_split(fixed, layout.source))
    return checked(source, features)


def _check_patients(name: str, rows: pl.DataFrame, layout: Layout) -> None:
    """Whether each patient is described consistently and no moment stands twice."""
    for column, header in _CONSTANT.items():
        if header in layout.lacking:
            continue
        empty = rows.filter(pl.col(column).is_null())
        if empty.height:
            raise DataError(f"{name}: row {empty['row'][0]} has no {header!r} ({empty.height} such rows)",
                            "every row repeats age, gender, stay times and outcome", "fill the cell")
        several = rows.group_by("patient").agg(pl.col(column).n_unique().alias("values"), pl.col("row").min())
        several = several.filter(pl.col("values") > 1).sort("row")
        if several.height:
            raise DataError(f"{name}: the patient that begins in row {several['row'][0]} has {several['values'][0]} "
                            f"different values of {header!r} ({several.height} such patients)",
                            f"{header!r} is the same in all rows of a patient", "correct the rows of this patient")
    dated = rows.filter(pl.col("time").is_not_null())
    again = dated.filter(~pl.struct("patient", "time").is_first_distinct())
    if again.height:
        raise DataError(f"{name}: row {again['row'][0]} repeats patient and RE_DATE of an earlier row "
                        f"({again.height} such rows)", "a patient has one record at a time", "merge or remove the row")
    _check_codes(name, rows)


def _check_codes(name: str, rows: pl.DataFrame) -> None:
    rules: Sequence[tuple[str, pl.Expr, str]] = (
        ("gender", pl.col("sex").is_in([1, 2]), "1 (male) or 2 (female)"),
        ("outcome", pl.col("label").is_in([0, 1]), "0 (discharged alive) or 1 (died)"),
        ("age", pl.col("age").is_between(0, 120), "0 to 120 years"),
        ("Discharge time", pl.col("discharged_at") >= pl.col("admitted_at"), "not before the admission"))
    for header, holds, rule in rules:
        wrong = rows.filter(~holds)
        if wrong.height:
            raise DataError(f"{name}: row {wrong['row'][0]} breaks the rule of {header!r} ({wrong.height} such rows)",
                            f"{header!r} is {rule}", "correct the rows of this patient")


def _file_steps(workbook: Workbook, labs: Sequence[str], layout: Layout) -> list[Step]:
    rows = workbook.rows
    undated = rows.filter(pl.col("time").is_null())
    dated = rows.height - undated.height
    patients = rows["patient"].n_unique()
    left = rows.filter(pl.col("time").is_not_null())["patient"].n_unique()
    lab_cells = sum(undated[name].count() for name in (*labs, CONSTANT_LAB))
    return [
        Step("patients in the file", "patients", patients, 0, patients),
        Step("column name ends in a blank: trimmed", "columns", workbook.trimmed, 0, _width(layout, labs)),
        Step("id cell merged with the one above: filled", "rows", workbook.filled, 0, rows.height),
        *(_constant_steps(rows, labs) if layout.labs is None else _lacking_steps(layout, labs)),
        Step("row without RE_DATE: dropped", "rows", undated.height, undated.height, dated),
        Step("lab values in rows without RE_DATE: dropped", "values", lab_cells, lab_cells, 0),
        Step("patient without any dated row: dropped", "patients", patients - left, patients - left, left),
        Step("row dated before the admission: kept", "rows",
             rows.filter(pl.col("time") < pl.col("admitted_at")).height, 0, dated)]


def _width(layout: Layout, labs: Sequence[str]) -> int:
    """Columns of the sheet."""
    return len(FIXED) - len(layout.lacking) + (len(labs) + 1 if layout.labs is None else len(layout.labs))


def _constant_steps(rows: pl.DataFrame, labs: Sequence[str]) -> list[Step]:
    values = rows[CONSTANT_LAB].drop_nulls()
    return [
        Step(f"lab without information, {CONSTANT_LAB}: dropped", "columns", 1, 1, len(labs)),
        Step(f"values of {CONSTANT_LAB}, {(values == -1).sum()} of them -1: dropped", "values", values.len(),
             values.len(), 0)]


def _lacking_steps(layout: Layout, labs: Sequence[str]) -> list[Step]:
    there = len(layout.labs or ())
    return [Step("lab of the catalogue that the file does not have: never measured", "columns", len(labs) - there, 0,
                 there),
            Step(f"{' and '.join(layout.lacking)} are not in the file: unknown", "columns", len(layout.lacking), 0, 0)]


def _after_discharge(rows: pl.DataFrame, drop: bool) -> tuple[pl.DataFrame, list[Step]]:
    """Counts rows, days and patients that lie wholly after the discharge; drops them where asked to."""
    inside = rows.filter(pl.col("time") <= pl.col("discharged_at"))
    late = rows.filter(pl.col("time") > pl.col("discharged_at"))
    verb = "dropped" if drop else "kept"
    steps = []
    for unit, before, after in (("rows", rows.height, inside.height), ("days", _days(rows), _days(inside)),
                                ("patients", rows["patient"].n_unique(), inside["patient"].n_unique())):
        found = before - after
        of = f" (rows of {late['patient'].n_unique()} patients)" if unit == "rows" else ""
        steps.append(Step(f"dated after the discharge{of}: {verb}", unit, found, found if drop else 0,
                          after if drop else before))
    return (inside if drop else rows), steps


def _days(rows: pl.DataFrame) -> int:
    return rows.select("patient", pl.col("time").dt.date()).unique().height


def _with_opaque_ids(rows: pl.DataFrame, source: str) -> pl.DataFrame:
    patients = rows["patient"].unique().sort()
    ids = pl.DataFrame({"patient": patients, "stay_id": opaque_ids(f"{source}-stay", patients),
                        "patient_id": opaque_ids(f"{source}-patient", patients)})
    return rows.join(ids, on="patient", how="left", maintain_order="left").drop("patient")


def _opaque_split(fixed: pl.DataFrame | None, source: str) -> pl.DataFrame | None:
    if fixed is None:
        return None
    ids = pl.Series("patient_id", opaque_ids(f"{source}-patient", fixed["patient"]), dtype=pl.String)
    return fixed.select(ids, "split").sort("patient_id")


def _stays(rows: pl.DataFrame) -> pl.DataFrame:
    sex = pl.col("sex").replace_strict({1: "male", 2: "female"}, default="unknown", return_dtype=pl.String)
    return (rows.unique("stay_id").sort("stay_id")
            .select("stay_id", "patient_id", "age", sex.alias("sex"), "admitted_at", "discharged_at",
                    pl.col("label").cast(pl.Int8)))


def _events(rows: pl.DataFrame, labs: Sequence[str]) -> pl.DataFrame:
    long = rows.unpivot(on=list(labs), index=["stay_id", "time"], variable_name="feature", value_name="value")
    return long.drop_nulls("value").sort("stay_id", "time", "feature")
