"""Measurements by patient part: scattered while they are read, then sorted a part at a time.

In: columns of measurements in any order. Out: `part-000.parquet ... part-063.parquet`, by patient hash, each sorted by
subject, time, feature and value, in small row groups; and the patients of each part with a digest of their rows. Memory
does not grow with the data: measurements are written every `FLUSH` rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

PARTS = 64
FLUSH = 1 << 20
ROW_GROUP = 4096


def part_of(subject: np.ndarray) -> np.ndarray:
    """The part of each patient: a mix of the bits of its number (splitmix64), the same on every machine."""
    return (mix(subject.astype(np.uint64)) % np.uint64(PARTS)).astype(np.int16)


class Scatter:
    """Measurements collected and written to the raw file of their part every `FLUSH` rows.

    Args:
        out: folder of the raw files. schema: of the columns; `subject` is one.
        absent: columns that may lack a value, with the number that stands for none.
    """

    def __init__(self, out: Path, schema: pa.Schema, absent: Mapping[str, int]) -> None:
        self._out, self._schema, self._absent = out, schema, absent
        self._waiting, self._size = [], 0  # type: list[dict[str, np.ndarray]], int
        self._writers: list[pa.RecordBatchFileWriter] = []

    def __enter__(self) -> Scatter:
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        self._writers = [pa.ipc.new_file(str(_raw(self._out, part)), self._schema, options=options)
                         for part in range(PARTS)]
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        try:
            if kind is None:
                self._flush()
        finally:
            for writer in self._writers:
                writer.close()

    def add(self, columns: dict[str, np.ndarray]) -> None:
        """Takes the columns of some measurements, (R,) each."""
        self._waiting.append(columns)
        self._size += columns["subject"].size
        if self._size >= FLUSH:
            self._flush()

    def _flush(self) -> None:
        if not self._size:
            return
        columns = {name: np.concatenate([block[name] for block in self._waiting]) for name in self._schema.names}
        self._waiting, self._size = [], 0
        parts = part_of(columns["subject"])
        order = np.argsort(parts, kind="stable")
        ends = np.searchsorted(parts[order], np.arange(PARTS + 1))
        for part, (start, stop) in enumerate(zip(ends[:-1], ends[1:], strict=True)):
            if stop > start:
                rows = order[start:stop]
                arrays = [self._array(name, column[rows]) for name, column in columns.items()]
                self._writers[part].write_batch(pa.record_batch(arrays, schema=self._schema))

    def _array(self, name: str, values: np.ndarray) -> pa.Array:
        mask = values == self._absent[name] if name in self._absent else None
        return pa.array(values, type=self._schema.field(name).type, mask=mask)


def sort_part(out: Path, part: int, absent: Mapping[str, int]) -> pa.Table:
    """Sorts the raw file of one part for good; returns its patients (subject, part, rows, digest)."""
    raw = _raw(out, part)
    with pa.memory_map(str(raw)) as source:
        rows = pa.ipc.open_file(source).read_all()
        rows = rows.sort_by([(name, "ascending") for name in ("subject", "time", "feature", "value")])
    pq.write_table(rows, out / f"part-{part:03d}.parquet", compression="zstd", row_group_size=ROW_GROUP,
                   use_dictionary=[name for name in ("subject", "hadm", "stay") if name in rows.column_names])
    raw.unlink()
    subject = rows["subject"].to_numpy()
    subjects, starts, counts = np.unique(subject, return_index=True, return_counts=True)
    digests = np.add.reduceat(_row_digests(rows, absent), starts) if subject.size else np.empty(0, np.uint64)
    return pa.table({"subject": subjects, "part": np.full(subjects.size, part, np.int16),
                     "rows": counts.astype(np.int64), "digest": digests})


def _row_digests(rows: pa.Table, absent: Mapping[str, int]) -> np.ndarray:
    """A 64-bit digest of each row; their sum is the patient's, so that the order of rows leaves no trace."""
    mixed = np.zeros(rows.num_rows, np.uint64)
    for name in rows.column_names:
        column = rows[name].fill_null(absent[name]) if rows[name].null_count else rows[name]
        values = column.to_numpy()
        bits = values.view(np.uint64) if values.dtype == np.float64 else values.astype(np.int64).view(np.uint64)
        mixed = mix(mixed + bits)
    return mixed


def mix(bits: np.ndarray) -> np.ndarray:
    """splitmix64 (Steele, Lea and Flood 2014)."""
    with np.errstate(over="ignore"):
        bits = bits + np.uint64(0x9E3779B97F4A7C15)
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed: np.ndarray = bits ^ (bits >> np.uint64(31))
        return mixed


def _raw(out: Path, part: int) -> Path:
    return out / f"raw-{part:03d}.arrow"
