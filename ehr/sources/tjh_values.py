"""Odd values of the TJH file: missing codes, urine among blood, and hemoglobin in another unit.

In: dated rows with one column a lab. Out: the same rows with odd values set to null or converted, and a step for each
rule. Rows are never dropped here: a day that loses all its values is still a day on which the patient was seen.

How urine is told from blood (no column says it). Sediment: a leukocyte or erythrocyte count without hemoglobin comes
with nothing but a pH in this file, and a blood count always brings hemoglobin. Merged: a count with more than 10^13
erythrocytes per litre is no blood; the two there are sit in full blood counts in which the neutrophils alone outnumber
the "leukocytes". pH: at most 6.9 (mostly steps of 0.5, a test strip), or exactly 7.0, the next step: those come with
sediment or beside a normal bicarbonate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import polars as pl

from ehr.attrition import Step
from ehr.sources.tjh_workbook import CONSTANT_LAB

_WBC, _RBC, _PH, _HB = "White blood cell count", "Red blood cell count", "PH value", "hemoglobin"
MISSING_CODE = -1.0
URINE_RBC = 10.0
URINE_PH, STRIP_PH = 6.9, 7.0
GRAMS_PER_DECILITRE = 20.0


def clean(rows: pl.DataFrame, labs: Sequence[str]) -> tuple[pl.DataFrame, list[Step]]:
    """Removes what is no blood value and converts units; drops the constant column.

    Args:
        rows: stay columns, `time`, the labs and the constant lab.
        labs: names of the labs that stay.

    Returns:
        rows without the constant lab, in the same order, and what was done.
    """
    steps = []
    rows = rows.drop(CONSTANT_LAB)
    steps.append(_empty_days(rows, labs, f"day whose only lab was {CONSTANT_LAB}: kept as a visit without values"))
    for rule, names, odd in _rules(labs):
        rows, step = _blanked(rows, rule, names, odd)
        steps.append(step)
    rows, step = _converted(rows)
    steps.append(step)
    steps.append(_empty_days(rows, labs, "day without any value after cleaning: kept as a visit without values"))
    return rows, steps


def _rules(labs: Sequence[str]) -> list[tuple[str, list[str], Callable[[str], pl.Expr]]]:
    """(rule, labs it blanks, lab to the rows that it meets), in the order in which they apply."""
    sediment = pl.col(_HB).is_null() & (pl.col(_WBC).is_not_null() | pl.col(_RBC).is_not_null())
    merged = pl.col(_HB).is_not_null() & (pl.col(_RBC) > URINE_RBC)
    return [
        ("-1, code for missing", list(labs), lambda lab: pl.col(lab) == MISSING_CODE),
        ("cells of urine sediment (count without hemoglobin)", [_WBC, _RBC], lambda _: sediment),
        (f"cells of urine in a blood count (erythrocytes above {URINE_RBC:g})", [_WBC, _RBC], lambda _: merged),
        (f"pH of urine (at most {URINE_PH:g})", [_PH], lambda lab: pl.col(lab) <= URINE_PH),
        (f"pH of urine (exactly {STRIP_PH:.1f}, a test-strip step)", [_PH], lambda lab: pl.col(lab) == STRIP_PH)]


def _blanked(rows: pl.DataFrame, rule: str, names: list[str], odd: Callable[[str], pl.Expr]
             ) -> tuple[pl.DataFrame, Step]:
    before = _values(rows, names)
    # One with_columns: all labs of a rule are judged before any is blanked.
    rows = rows.with_columns(pl.when(~odd(name).fill_null(False)).then(pl.col(name)).alias(name) for name in names)
    after = _values(rows, names)
    return rows, Step(f"{rule}: set missing", "values", before - after, before - after, after)


def _converted(rows: pl.DataFrame) -> tuple[pl.DataFrame, Step]:
    low = (pl.col(_HB) < GRAMS_PER_DECILITRE).fill_null(False)
    found = rows.filter(low).height
    rows = rows.with_columns(pl.when(low).then(pl.col(_HB) * 10).otherwise(pl.col(_HB)).alias(_HB))
    rule = f"hemoglobin below {GRAMS_PER_DECILITRE:g}, in g/dL: converted to g/L"
    return rows, Step(rule, "values", found, 0, _values(rows, [_HB]))


def _values(rows: pl.DataFrame, names: Sequence[str]) -> int:
    return sum(rows[name].count() for name in names)


def _empty_days(rows: pl.DataFrame, labs: Sequence[str], rule: str) -> Step:
    days = rows.group_by("patient", pl.col("time").dt.date()).agg(pl.col(*labs).count())
    empty = days.filter(pl.sum_horizontal(labs) == 0).height
    return Step(rule, "days", empty, 0, days.height)
