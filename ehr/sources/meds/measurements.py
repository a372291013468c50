"""Measurements of a MEDS dataset by patient part: read once, kept by the checksums of its files.

In: a `Dataset` and its `Codes`. Out: a folder as of `ehr.sources.parts` with `counts.json` (written last). Memory does
not grow with the dataset: it is read some hundred thousand rows at a time.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from contracts.errors import DataError
from ehr.attrition import Step
from ehr.sources.drafts import drafted, locked
from ehr.sources.meds.codes import UNKNOWN_TEXT, UNKNOWN_UNIT, Codes
from ehr.sources.meds.dataset import Dataset
from ehr.sources.parts import COLUMNS, Scatter, sort_parts

FORMAT = 3
# Written last.
WHOLE = "counts.json"
# Times that the aggregation can hold: from 1970 on, for two thousand years.
_LAST = 1 << 36
_DROPPED = ("no number", "no subject_id", "no time", "time before 1970 or after 4147")
OnProgress = Callable[[int, int], None]


def measure(dataset: Dataset, codes: Codes, key: str, total: int, cache: Path, limit: float,
            on_progress: OnProgress = lambda *_: None) -> Path:
    """The folder of the dataset's measurements; made if it is not in the cache.

    Args:
        key: digest of all files and of the mapping. total: rows of the dataset.
        limit: largest share of rows of the features whose unit or text nobody knows. The folder stays in the cache all
            the same: another limit needs no other reading.
        on_progress: called with (rows read, rows in all).

    Raises:
        DataError: a file is damaged, or too many units or texts are unknown.
        StorageError: the disk is full or not writable.
    """
    folder = cache / f"meds-{key[:24]}-{FORMAT}"
    with locked(folder):
        if not (folder / WHOLE).is_file():
            with drafted(folder, WHOLE) as draft:
                _write(dataset, codes, total, draft, on_progress)
        counts = _counts_of(folder)
    _check_share(counts, limit)
    return folder


def _counts_of(folder: Path) -> dict[str, Any]:
    counts: dict[str, Any] = json.loads((folder / WHOLE).read_text(encoding="utf-8"))
    return counts


def _check_share(counts: Mapping[str, Any], limit: float) -> None:
    aside, interest = counts["aside"], counts["interest"]
    unread = sum(entry["rows"] for entry in aside)
    if unread <= limit * interest:
        return
    worst = ", ".join(f"{entry['code']!r} ({entry['reason']}, {entry['rows']} rows)" for entry in aside[:3])
    raise DataError(f"{unread} of {interest} measurements are set aside: {worst}",
                    f"at most a share of {limit:g} (cohort.meds.quarantine_limit)",
                    "name the unit or text in the mapping; raise the limit only if these rows are worthless")


def steps_of(folder: Path) -> tuple[list[Step], pl.DataFrame]:
    """Attrition of the rows, and table, key, reason, text of codes with rows that were set aside."""
    counts = _counts_of(folder)
    left = counts["interest"]
    others = counts["rows"] - left
    steps = [Step("events: row of a code that means no feature: not read", "rows", others, others, left)]
    for reason, count in counts["dropped"].items():
        left -= count
        steps.append(Step(f"events: {reason}: dropped", "rows", count, count, left))
    for reason in (UNKNOWN_UNIT, UNKNOWN_TEXT):
        count = sum(entry["rows"] for entry in counts["aside"] if entry["reason"] == reason)
        left -= count
        if count:
            steps.append(Step(f"events: {reason}: set aside", "rows", count, count, left))
    aside = [("events", entry["code"], entry["reason"], f"{entry['rows']} rows") for entry in counts["aside"]]
    schema = dict.fromkeys(("table", "key", "reason", "text"), pl.String)
    return steps, pl.DataFrame(aside, schema=schema, orient="row")


def values_of(rows: pl.DataFrame, codes: Codes) -> pl.DataFrame:
    """subject, time [s], feature, value, code, reason (null: to be kept) of the rows whose code means a feature.

    Args:
        rows: subject, time, code, number, text.
    """
    met = rows.join(codes.features, on="code", how="inner")
    met = met.with_columns(pl.col("text").str.strip_chars().str.to_lowercase())
    met = met.join(codes.texts, on=["code", "text"], how="left")
    number = pl.col("number") * pl.col("factor") + pl.col("offset")
    value = pl.coalesce("fixed", pl.when("coded").then("decoded").otherwise(number))
    time = pl.col("time").dt.epoch("s")
    has_text = pl.col("text").fill_null("").ne("")
    empty = pl.when("coded").then(~has_text).otherwise(pl.col("number").is_null() | ~pl.col("number").is_finite())
    reason = (pl.when(pl.col("subject").is_null()).then(pl.lit("no subject_id"))
              .when(time.is_null()).then(pl.lit("no time"))
              .when((time < 0) | (time >= _LAST)).then(pl.lit(_DROPPED[3]))
              .when(pl.col("fixed").is_not_null()).then(pl.lit(None, pl.String))
              .when(empty).then(pl.lit("no number"))
              .when(pl.col("coded") & pl.col("decoded").is_null()).then(pl.lit(UNKNOWN_TEXT))
              .when(~pl.col("coded") & pl.col("factor").is_null()).then(pl.lit(UNKNOWN_UNIT)))
    return met.select("subject", time.alias("time"), "feature", value.alias("value"), "code", reason.alias("reason"))


def _write(dataset: Dataset, codes: Codes, total: int, out: Path, on_progress: OnProgress) -> None:
    wrong: Counter[tuple[str, str]] = Counter()
    read = interest = 0
    with Scatter(out) as scatter:
        for rows in dataset.batches():
            met = values_of(rows, codes)
            for reason, code, count in met.drop_nulls("reason").group_by("reason", "code").len().iter_rows():
                wrong[reason, code] += count
            kept = met.filter(pl.col("reason").is_null())
            scatter.add(*(kept[name].to_numpy() for name in COLUMNS))
            read, interest = read + rows.height, interest + met.height
            on_progress(min(read, total), total)
    aside = [{"code": code, "reason": reason, "rows": count} for (reason, code), count in sorted(wrong.items())
             if reason not in _DROPPED]
    sort_parts(out)
    dropped = {reason: sum(count for (why, _), count in wrong.items() if why == reason) for reason in _DROPPED}
    counts = {"rows": read, "interest": interest, "dropped": dropped, "aside": aside}
    (out / WHOLE).write_text(json.dumps(counts, indent=1) + "\n", encoding="utf-8")
