"""From events to visits: plausible values, calendar-day records, and the window of the newest days (method section 2).

In: records (stay_id, time) and events. Out: frames with one row a calendar day of a stay and one column a feature.

A value is the mean of the day (numeric) or its last one (ordinal). The leading summary is the mean of the daily means
(numeric) or the last value (ordinal) of all earlier days, and stands at the mean of their days. Means are rounded to
twelve significant digits: the order of a sum then leaves no trace in the result.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from contracts.errors import ContractError
from contracts.features import Catalogue, Feature
from contracts.frames import check_first, check_visits
from ehr.attrition import Step

DIGITS = 12
_DATE = pl.col("time").dt.date().alias("date")


def plausible(events: pl.DataFrame, catalogue: Catalogue) -> tuple[pl.DataFrame, list[Step]]:
    """Drops values outside the plausible range of their feature; bounds belong to it.

    Args:
        events: contract EVENTS.

    Returns:
        the events that remain, in their order, and a step for each feature that lost any and for all together.
    """
    bounds = pl.DataFrame([(item.name, item.low, item.high) for item in catalogue],
                          schema={"feature": pl.String, "low": pl.Float64, "high": pl.Float64}, orient="row")
    judged = events.join(bounds, on="feature", how="left", maintain_order="left")
    holds = pl.col("value").is_between(pl.col("low"), pl.col("high"))
    tally = judged.group_by("feature").agg(holds.sum().alias("kept"), (~holds).sum().alias("found"))
    counts = {feature: (found, kept) for feature, found, kept in tally.select("feature", "found", "kept").iter_rows()}
    steps = []
    for item in catalogue:
        found, kept = counts.get(item.name, (0, 0))
        if found:
            rule = f"{item.name} outside {item.low:g} to {item.high:g} {item.unit}".rstrip()
            steps.append(Step(f"{rule}: dropped", "values", found, found, kept))
    remaining = judged.filter(holds).select(events.columns)
    lost = events.height - remaining.height
    steps.append(Step("value outside the plausible range of its feature: dropped", "values", lost, lost,
                      remaining.height))
    return remaining, steps


def daily(records: pl.DataFrame, events: pl.DataFrame, catalogue: Catalogue) -> pl.DataFrame:
    """One row a calendar day with any record, ordered by stay and day.

    Returns:
        stay_id, date, then the F features as Float64; null = not measured that day.

    Raises:
        ContractError: an event lies on a day of its stay that has no record.
    """
    days = records.lazy().select("stay_id", _DATE).unique().sort("stay_id", "date").with_row_index("row").collect()
    width = len(catalogue.names)
    column = pl.col("feature").cast(pl.Enum(catalogue.names)).to_physical().cast(pl.Int64)
    cells = (events.lazy().with_columns(_DATE).join(days.lazy(), on=["stay_id", "date"])
             .select("time", "value", column.alias("column"), (pl.col("row") * width + column).alias("cell")).collect())
    if cells.height < events.height:
        raise ContractError(f"{events.height - cells.height} events on days without a record",
                            "each event belongs to a record", "correct the reader of this source")
    ordinal = pl.col("column").is_in([index for index, item in enumerate(catalogue) if item.kind == "ordinal"])
    values = _means(cells.filter(~ordinal), days.height * width)
    last = cells.filter(ordinal).sort("time", "value")
    # Of several values of one cell NumPy keeps the one assigned last.
    values[last["cell"].to_numpy()] = last["value"].to_numpy()
    wide = pl.DataFrame(values.reshape(days.height, width), schema=dict.fromkeys(catalogue.names, pl.Float64),
                        nan_to_null=True)
    return days.drop("row").hstack(wide.with_columns(_rounded(item) for item in catalogue))


def window(days: pl.DataFrame, catalogue: Catalogue, max_days: int) -> pl.DataFrame:
    """Keeps the newest `max_days` daily records of each stay, after one summary of all earlier ones.

    Args:
        days: result of `daily`.

    Returns:
        contract VISITS. `day` counts from the stay's first record, the summarised ones included.
    """
    names = catalogue.names
    placed = days.lazy().sort("stay_id", "date").with_columns(
        (pl.col("date") - pl.col("date").first().over("stay_id")).dt.total_days().cast(pl.Float64).alias("day"),
        pl.int_range(pl.len(), 0, -1).over("stay_id").alias("from_end"))
    newest = placed.filter(pl.col("from_end") <= max_days).select(
        "stay_id", "day", pl.lit(False).alias("is_summary"), *names)
    summary = placed.filter(pl.col("from_end") > max_days).group_by("stay_id", maintain_order=True).agg(
        pl.col("day").mean().round_sig_figs(DIGITS), pl.lit(True).alias("is_summary"),
        *(pl.col(item.name).drop_nulls().last() if item.kind == "ordinal"
          else pl.col(item.name).mean().round_sig_figs(DIGITS) for item in catalogue))
    visits = (pl.concat([summary, newest]).sort("stay_id", "day")
              .with_columns(pl.int_range(pl.len(), dtype=pl.Int32).over("stay_id").alias("visit"))
              .select("stay_id", "visit", "day", "is_summary", *names).collect())
    return check_visits(visits, names)


def first_days(days: pl.DataFrame, catalogue: Catalogue) -> pl.DataFrame:
    """The first daily record of each stay: all that is known on its first day, however long it lasts.

    Visit 0 of `window` is that record only where the stay has at most `max_days`; of a longer one it is a summary of
    days that are still to come.

    Args:
        days: result of `daily`.

    Returns:
        contract VISITS, one row a stay, ordered by stay_id. LOCF has nothing to carry here.
    """
    first = days.sort("stay_id", "date").unique("stay_id", keep="first", maintain_order=True)
    fixed = (pl.lit(0, dtype=pl.Int32).alias("visit"), pl.lit(0.0).alias("day"), pl.lit(False).alias("is_summary"))
    return check_first(first.select("stay_id", *fixed, *catalogue.names), catalogue.names)


def _means(cells: pl.DataFrame, size: int) -> np.ndarray:
    """Mean of the values of each cell, (size,); NaN where it has none."""
    cell = cells["cell"].to_numpy()
    counts = np.bincount(cell, minlength=size)
    sums = np.bincount(cell, weights=cells["value"].to_numpy(), minlength=size)
    return np.divide(sums, counts, out=np.full(size, np.nan), where=counts > 0)


def _rounded(item: Feature) -> pl.Expr:
    return pl.col(item.name) if item.kind == "ordinal" else pl.col(item.name).round_sig_figs(DIGITS)
