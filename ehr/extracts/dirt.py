"""Dirt: what goes wrong in real charts, strewn over clean rows and counted.

In: `Rows` and a rate. Out: `Rows` with some of them spoilt, each in one way, and how many of each item. Files that
cannot be parsed are not dirt: they are broken, and a reader must refuse them.

What a row of each kind looks like; all else in it is as it was:

- duplicate_row: a second row, equal in all columns;
- wrong_unit: `valueuom` is mmHg, or bpm where mmHg would be right;
- impossible_value: 999999 or a negative number, in `value` and `valuenum`;
- outside_stay: `charttime` is 3 to 30 days before the begin or after the end of the stay that `stay_id` names (by time
  it may lie in another stay of the patient);
- missing_hadm_id, missing_stay_id: that column is empty, `charttime` is right;
- text_value, redacted_value: `value` is a remark or `___`, `valuenum` is empty. In labs, `___` beside a number is no
  dirt: real files are full of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from ehr.extracts.bedside import Rows, mixed
from ehr.extracts.people import DAY, People

# The index of a kind is its number in `Rows.kind`.
KINDS = ("clean", "duplicate_row", "wrong_unit", "impossible_value", "outside_stay", "missing_hadm_id",
         "missing_stay_id", "text_value", "redacted_value")
(CLEAN, DUPLICATE, UNIT, IMPOSSIBLE, OUTSIDE, NO_ADMISSION, NO_STAY, TEXT, REDACTED) = range(len(KINDS))
IN_CHARTS = (DUPLICATE, UNIT, IMPOSSIBLE, OUTSIDE, NO_ADMISSION, NO_STAY, TEXT, REDACTED)
# A laboratory result needs neither an admission nor a stay: nothing is wrong where they are missing.
IN_LABS = (DUPLICATE, UNIT, IMPOSSIBLE, TEXT, REDACTED)
# Every vocabulary of texts begins so; 0 stands for the number itself.
HIDDEN = "___"
TEXTS: tuple[str | None, ...] = (None, HIDDEN, "error", "see note", 'unable to obtain, pt. "moving"')
# Every vocabulary of units begins so; 0 stands for none.
UNITS: tuple[str | None, ...] = (None, "mmHg", "bpm")
_FAR = 3 * DAY, 30 * DAY
_IMPOSSIBLE = 999_999.0
SCHEMA = {"table": pl.String, "kind": pl.String, "itemid": pl.Int64, "rows": pl.Int64}


@dataclass
class Tally:
    """Rows of each kind and item of one table, added up over pieces; a duplicate is counted where it is added."""

    table: str
    items: Sequence[int]
    counts: np.ndarray

    def add(self, rows: Rows) -> None:
        """Counts the dirt of a piece, before duplicates are added."""
        cells = rows.kind.astype(np.int64) * len(self.items) + rows.item
        self.counts += np.bincount(cells, minlength=self.counts.size).reshape(self.counts.shape)

    def frame(self) -> pl.DataFrame:
        """table, kind, itemid, rows; without what did not happen."""
        kind, item = np.nonzero(self.counts)
        cells = [(self.table, KINDS[a], self.items[b], int(self.counts[a, b])) for a, b in zip(kind, item, strict=True)
                 if a != CLEAN]
        return pl.DataFrame(cells, schema=SCHEMA, orient="row")


def tally(table: str, items: Sequence[int]) -> Tally:
    """An empty tally."""
    return Tally(table, items, np.zeros((len(KINDS), len(items)), np.int64))


def strew(rows: Rows, people: People, kinds: Sequence[int], rate: float, counts: Tally,
          rng: np.random.Generator) -> Rows:
    """Spoils a share of the rows, each in one way chosen by chance, and counts what was done.

    What can only befall a number (a unit, an impossible value) becomes a text value in rows that have none.
    """
    count = rows.stay.size
    kind = np.where(rng.random(count) < rate, rng.choice(kinds, count), CLEAN).astype(np.int8)
    kind[np.isnan(rows.number) & np.isin(kind, (UNIT, IMPOSSIBLE))] = TEXT
    rows = _spoilt(replace(rows, kind=kind), people, rng)
    counts.add(rows)
    return rows.take(np.concatenate([np.arange(count), np.flatnonzero(kind == DUPLICATE)]))


def _spoilt(rows: Rows, people: People, rng: np.random.Generator) -> Rows:
    kind, chance = rows.kind, mixed(rows.stamp, rows.serial)
    even = chance % 2 == 0
    away = rng.integers(*_FAR, kind.size)
    begin, end = people.stays.begin[rows.stay], people.stays.end[rows.stay]
    outside = np.where(even, begin - away, end + away) // 60 * 60
    silent = np.isin(kind, (TEXT, REDACTED))
    number = np.where(kind == IMPOSSIBLE, np.where(even, _IMPOSSIBLE, -1.0 - np.abs(rows.number)), rows.number)
    words = np.where(kind == REDACTED, 1, 2 + (chance >> 1) % (len(TEXTS) - 2))
    text = np.where(kind == IMPOSSIBLE, 0, np.where(silent, words, rows.text))
    return replace(rows, time=np.where(kind == OUTSIDE, outside, rows.time), number=np.where(silent, np.nan, number),
                   text=text, unit=np.where(kind == UNIT, np.where(rows.unit == 1, 2, 1), rows.unit))
