"""From an event table to measurements by patient: read once, kept by the checksum of the file.

In: a `layout.Table` and its sha256. Out: a folder

    part-000.parquet ... part-031.parquet   subject, time [s], feature, value; by patient hash, sorted by all four
    patients.parquet                        subject, part, start, rows, digest (of all its rows)
    quarantine.parquet                      row (of the file, first data row 0), reason, text
    counts.json                             attrition steps and totals; written last. `interest`: rows that could be
                                            read; `unread`: rows that could not; no row is in both

A measurement is in the units of the catalogue; implausible values are still inside. Memory does not grow with the file
(`ehr.sources.parts`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from contracts.errors import DataError
from ehr.sources.drafts import drafted, locked
from ehr.sources.mimic_iv.blocks import Rows, blocks
from ehr.sources.mimic_iv.items import Items, items
from ehr.sources.mimic_iv.layout import Table
from ehr.sources.mimic_iv.sieve import EMPTY, NO_INTEGER, NO_TIME
from ehr.sources.mimic_iv.units import KEPT, NO_NUMBER, UNKNOWN_TEXT, UNKNOWN_UNIT, UnitTable
from ehr.sources.parts import Scatter, sort_parts

FORMAT = 4
# Written last.
WHOLE = "counts.json"
# Rows of the quarantine that are kept with their text; all are counted.
KEPT_QUARANTINE = 100_000
OnProgress = Callable[[int, int], None]


def ingest(table: Table, checksum: str, cache: Path, limit: float, on_progress: OnProgress | None = None) -> Path:
    """The folder of this table's measurements; made if it is not in the cache.

    Args:
        checksum: sha256 of the file. cache: where folders of all files lie.
        limit: largest share of rows of interest in quarantine; more means that the file is not what it should be. The
            folder stays in the cache all the same: another limit needs no other reading.
        on_progress: called with (bytes read, bytes in all).

    Raises:
        DataError: the file is damaged (see `blocks`), or too much of it goes to quarantine.
        StorageError: the disk is full or not writable.
    """
    known = items()
    name = table.name.partition("/")[2]
    folder = cache / f"{name}-{checksum[:16]}-{known.digest[:8]}-{FORMAT}"
    with locked(folder):
        if not (folder / WHOLE).is_file():
            with drafted(folder, WHOLE) as draft:
                _ingest(table, name, known, draft, on_progress)
        counts = counts_of(folder)
    _check_share(table, counts, limit)
    return folder


def counts_of(folder: Path) -> dict[str, Any]:
    """What `ingest` counted."""
    counts: dict[str, Any] = json.loads((folder / WHOLE).read_text(encoding="utf-8"))
    return counts


def _check_share(table: Table, counts: Mapping[str, Any], limit: float) -> None:
    aside, seen = counts["quarantine"], counts["interest"] + counts["unread"]
    if not counts["interest"] or aside <= limit * seen:
        return
    worst = ", ".join(f"{reason} ({count})" for reason, count in Counter(counts["reasons"]).most_common(3))
    raise DataError(f"{table.path.name}: {aside} of {seen} rows go to quarantine: {worst}; the first is data row "
                    f"{counts['first']}", f"at most a share of {limit:g} (cohort.mimic_iv.quarantine_limit)",
                    "correct the file; raise the limit only if these rows are known to be worthless")


def _ingest(table: Table, name: str, known: Items, out: Path, on_progress: OnProgress | None) -> None:
    size = table.path.stat().st_size
    reader, scatter, quarantine = _Reader(known, name), Scatter(out), _Quarantine(out)
    with scatter:
        for rows in blocks(table, reader.units.numbers.tolist()):
            scatter.add(*reader.take(rows, quarantine))
            if on_progress:
                on_progress(min(rows.read, size), size)
    quarantine.write()
    patients = sort_parts(out)
    counts = {**{key: int(value) for key, value in sorted(reader.counts.items())}, "quarantine": quarantine.total,
              "reasons": dict(quarantine.reasons), "first": quarantine.first,
              "kept": int(patients["rows"].to_numpy().sum())}
    (out / WHOLE).write_text(json.dumps(counts, indent=1) + "\n", encoding="utf-8")


class _Reader:
    """Rows to measurements; what is none is counted, or set aside."""

    def __init__(self, known: Items, table: str) -> None:
        self.units = UnitTable(known, table)
        self.counts: Counter[str] = Counter()

    def take(self, rows: Rows, quarantine: _Quarantine) -> tuple[np.ndarray, ...]:
        """subject, time, feature and value of the measurements of one block."""
        quarantine.add(rows.bad)
        self.counts.update(rows=rows.rows, interest=rows.item.size, unread=len(rows.bad), returns=rows.returns)
        feature, value, why = self.units.convert(rows.item, rows.unit, rows.number, rows.value, rows.spelling)
        nowhere, undated = rows.subject == NO_INTEGER, rows.time == NO_TIME
        if not (why.any() or nowhere.any() or undated.any()):
            self.counts.update(without_number=0, without_hadm=int(np.count_nonzero(rows.hadm == NO_INTEGER)),
                               without_stay=int(np.count_nonzero(rows.stay == NO_INTEGER)))
            return rows.subject, rows.time, feature, value
        numbers = why == KEPT
        for reason, wrong in (("a unit nobody knows for this item", why == UNKNOWN_UNIT),
                              ("a text nobody knows for this item", why == UNKNOWN_TEXT),
                              ("no subject_id", numbers & nowhere), ("no charttime", numbers & undated & ~nowhere)):
            quarantine.note(rows, wrong, reason)
        keep = numbers & ~nowhere & ~undated
        self.counts.update(without_number=int(np.count_nonzero(why == NO_NUMBER)),
                           without_hadm=int(np.count_nonzero(keep & (rows.hadm == NO_INTEGER))),
                           without_stay=int(np.count_nonzero(keep & (rows.stay == NO_INTEGER))))
        return rows.subject[keep], rows.time[keep], feature[keep], value[keep]


class _Quarantine:
    """Rows set aside, each with its reason; all are counted, the first hundred thousand kept."""

    def __init__(self, out: Path) -> None:
        self._out, self.total, self.first = out, 0, -1
        self.reasons: Counter[str] = Counter()
        self._rows: list[tuple[int, str, str]] = []

    def add(self, bad: list[tuple[int, str, str]]) -> None:
        for row, reason, text in bad:
            self.total += 1
            self.reasons[reason] += 1
            self.first = row if self.first < 0 else min(self.first, row)
            if len(self._rows) < KEPT_QUARANTINE:
                self._rows.append((row, reason, text))

    def note(self, rows: Rows, wrong: np.ndarray, reason: str) -> None:
        """Sets parsed rows aside; their text is item, number and unit."""
        places = np.flatnonzero(wrong)
        for place in places:
            unit = "" if rows.unit[place] == EMPTY else rows.spelling(int(rows.unit[place]))
            text = f"item {rows.item[place]}, number {rows.number[place]:g}, unit {unit!r}"
            self.add([(int(rows.row[place]), reason, text)])

    def write(self) -> None:
        schema = pa.schema([("row", pa.int64()), ("reason", pa.string()), ("text", pa.string())])
        rows = [dict(zip(schema.names, row, strict=True)) for row in self._rows]
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), self._out / "quarantine.parquet")
