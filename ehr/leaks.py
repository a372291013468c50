"""What can tell the label without medicine: records from after the stay, the cohort's own rule, order, identifiers.

In: a `Cohort`, and the `Source` it was made of where it is at hand. Out: findings; each check yields none, one or more.

The cohort knows days only as days since a stay's first record; with a source that hands over its records, times are
exact. Without it, or of a source that aggregates while it reads, the first record counts as made on the day of the
admission, and what is counted in whole days can only be too little.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from ehr.distributions import auroc
from ehr.finding import Finding
from ehr.folder import Cohort
from ehr.sources.source import Source

REVEALED = 0.99
CARRIED, CHANCE = 0.6, 0.001
CLOSE_HOURS = 24.0


def after_discharge(cohort: Cohort, source: Source | None) -> Iterator[Finding]:
    """Records after the discharge, the time of the prediction: an error where the cohort says they were dropped."""
    records = _records(source)
    if records is not None:
        ends = cohort.stays.select("stay_id", "discharged_at")
        late = records.join(ends, on="stay_id").filter(pl.col("time") > pl.col("discharged_at"))
        found, stays = late.height, late["stay_id"].n_unique()
    else:
        late = _last_days(cohort).filter(pl.col("last") > pl.col("span"))
        found, stays = int((late["last"] - late["span"]).sum()), late.height
    if not found:
        return
    unit = "calendar days (at least)" if records is None else "records"
    if cohort.meta.get("drop_after_discharge", False):
        yield Finding("error", "nothing dated after the discharge is left, since cohort.drop_after_discharge is set",
                      f"{found} {unit} after the discharge, of {stays} stays", "correct the reader of this source",
                      found)
    else:
        yield Finding("warning", "what a prediction sees lies before the discharge or death",
                      f"{found} {unit} after the discharge are kept, of {stays} stays",
                      "set cohort.drop_after_discharge=true, or say in the report that they are kept", found)


def label_anchor(cohort: Cohort, source: Source | None) -> Iterator[Finding]:  # noqa: ARG001 (all checks are called alike)
    """A label counted from the admission: long stays then see their own outcome."""
    outcome, anchor = cohort.meta.get("outcome"), cohort.meta.get("label_anchor")
    rule = "a label is counted from the discharge, when the prediction is made"
    if anchor not in (None, "discharge"):
        yield Finding("error", rule, f"the label {outcome!r} is counted from: {anchor}",
                      "count the label from the discharge in the reader of this source", cohort.stays.height)
    elif anchor is None and outcome != "mortality":
        yield Finding("warning", rule, f"nothing says from when the label {outcome!r} is counted",
                      "let the source write label_anchor to the cohort's meta", cohort.stays.height)


def close_to_outcome(cohort: Cohort, source: Source | None) -> Iterator[Finding]:
    """Median time from the last record to the death below a day. An outcome after the discharge is not judged.

    A stay in an ICU may end before the death: then the time to its end is what counts.
    """
    if cohort.meta.get("outcome") != "mortality":
        return
    dead = cohort.stays.filter(pl.col("label") == 1)
    records = _records(source)
    if records is not None:
        last = records.group_by("stay_id").agg(pl.col("time").max())
        gap = (pl.col("discharged_at") - pl.col("time")).dt.total_seconds() / 3600.0
        hours = dead.join(last, on="stay_id").select(gap.clip(0.0))
    else:
        days = _last_days(cohort).join(dead, on="stay_id", how="semi")
        hours = days.select(((pl.col("span") - pl.col("last")) * 24.0).clip(0.0))
    if not hours.height:
        return
    median = float(np.median(hours.to_series().to_numpy()))
    if median < CLOSE_HOURS:
        exact = " by calendar days" if records is None else ""
        yield Finding("warning", f"a prediction comes at least {CLOSE_HOURS:g} h before the outcome",
                      f"{median:.1f} h{exact} from the last record to the death or the end of the stay, the median of "
                      f"{hours.height} stays",
                      "read the result as recognising a dying patient, or leave the last day out", hours.height)


def revealing_rule(cohort: Cohort, source: Source | None) -> Iterator[Finding]:  # noqa: ARG001
    """A label that follows from how the cohort was put together and not from what was measured.

    An error where something is trained on it; on a second site nobody learns it, but a model may still be told by it.
    """
    trained = (cohort.stays["split"] == "train").any()
    rows = cohort.visits.group_by("stay_id").agg(pl.len().alias("rows"))
    stays = cohort.stays.sort("stay_id").join(rows, on="stay_id", how="left", maintain_order="left")
    order = pl.col("admitted_at").rank("ordinal").over("patient_id").cast(pl.Int64)
    stays = stays.with_columns(order.alias("order"), (pl.len().over("patient_id") - order).alias("later"))
    labels = stays["label"].to_numpy()
    ways = {"days": "the number of daily records", "rows": "the number of visits",
            "order": "the number of the stay within its patient", "later": "the number of later stays of the patient",
            "split": "the split"}
    for column, words in ways.items():
        area = _told_by(labels, stays[column], ordered=column in ("days", "rows"))
        if area >= REVEALED:
            yield Finding("error" if trained else "warning",
                          "a label follows from measurements, not from the rule that made the cohort",
                          f"the label follows from {words}: AUROC {area:.3f}",
                          "look at which stays the cohort keeps and how their label is made" if trained else
                          "read figures on this site with care: what shows how long a stay was shows its end",
                          stays.height)


def carried_by_order(cohort: Cohort, source: Source | None) -> Iterator[Finding]:
    """The label in the order of rows or of identifiers, and in identifiers that are still numbers."""
    labels = cohort.stays["label"].to_numpy()
    told = []
    for column in (name for name in cohort.stays.columns if name.endswith("_id")):
        numbers = _numbers(cohort.stays[column])
        ranked = numbers if numbers is not None else cohort.stays[column].rank("dense").to_numpy()
        area = _carried(labels, ranked)
        if area and numbers is not None:
            yield Finding("error", "an identifier says nothing about the label",
                          f"{column} is still a number and tells the label: AUROC {area:.2f}",
                          "replace it by `opaque_ids` in the reader of this source", cohort.stays.height)
        elif area:
            told.append((f"the order of {column}", area))
    for words, order in _row_orders(cohort, source):
        area = _carried(labels, order)
        if area:
            told.append((words, area))
    if told:
        yield Finding("warning", "the order of rows and identifiers says nothing about the label",
                      "; ".join(f"{words} tells the label: AUROC {area:.2f}" for words, area in told),
                      "order by an opaque identifier in the reader of this source", len(told))


def _records(source: Source | None) -> pl.DataFrame | None:
    """stay_id, time of all records; None where nobody knows them: MIMIC-IV and MEDS hand over whole days."""
    return None if source is None or not source.records.height else source.records


def _last_days(cohort: Cohort) -> pl.DataFrame:
    """stay_id, last: day of the newest visit; span: days from the day of the admission to that of the discharge."""
    last = cohort.visits.group_by("stay_id").agg(pl.col("day").max().floor().cast(pl.Int64).alias("last"))
    span = (pl.col("discharged_at").dt.date() - pl.col("admitted_at").dt.date()).dt.total_days()
    return cohort.stays.select("stay_id", span.alias("span")).join(last, on="stay_id")


def _told_by(labels: np.ndarray, column: pl.Series, ordered: bool) -> float:
    """AUROC of the label's share among the other stays of the same unit, and of the number itself where it is one.

    The share is taken from the other half of the stays, so that units of one stay do not seem to tell everything.
    """
    units = column.rank("dense").to_numpy().astype(np.int64) - 1
    if units.max(initial=0) == 0:
        return 0.5
    half = np.arange(units.size) % 2
    scores = np.full(units.size, float(labels.mean()))
    for side in (0, 1):
        here, there = half == side, half != side
        size = np.bincount(units[there], minlength=units.max() + 1)
        hits = np.bincount(units[there], weights=labels[there], minlength=units.max() + 1)
        shares = np.divide(hits, size, out=np.full(size.size, float(labels.mean())), where=size > 0)
        scores[here] = shares[units[here]]
    areas = [auroc(labels, scores)[0]]
    if ordered:
        area = auroc(labels, units)[0]
        areas += [area, 1.0 - area]
    return max(areas)


def _numbers(ids: pl.Series) -> np.ndarray | None:
    """The identifiers as numbers, if each is a number with at most letters around it; None for opaque ones."""
    digits = ids.cast(pl.String).str.extract(r"^[^\d]*(\d{1,18})[^\d]*$")
    return None if digits.null_count() or not digits.len() else digits.cast(pl.Int64).to_numpy()


def _row_orders(cohort: Cohort, source: Source | None) -> Iterator[tuple[str, np.ndarray]]:
    """Where each stay of `cohort.stays` first stands in the other frames; sorted frames say what the identifiers do."""
    frames = {"the rows of stays": cohort.stays, "the rows of visits": cohort.visits}
    if source is not None:
        frames |= {"the source's stays": source.stays, "the source's records": source.records,
                   "the source's events": source.events}
    for words, frame in frames.items():
        if frame["stay_id"].is_sorted():
            continue
        first = frame.select("stay_id").with_row_index("row").group_by("stay_id").agg(pl.col("row").min())
        places = cohort.stays.select("stay_id").join(first, on="stay_id", how="left", maintain_order="left")["row"]
        yield words, places.fill_null(frame.height).to_numpy()


def _carried(labels: np.ndarray, scores: np.ndarray) -> float:
    """AUROC, either way round, if it is above CARRIED and beyond chance; else 0."""
    area, p = auroc(labels, scores)
    area = max(area, 1.0 - area)
    return area if area > CARRIED and p < CHANCE else 0.0
