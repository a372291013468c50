"""Measurements by patient part: scattered while they are read, then sorted a part at a time.

In: columns of measurements in any order. Out: `part-000.parquet ... part-031.parquet`, by patient hash, each with
subject, time [s], feature and value, sorted by all four; and the patients of each part, with a digest of their rows and
where these stand. Memory does not grow with the data: measurements wait in a buffer for each part, then in raw files.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numba import njit

from ehr.sources.places import is_local, seekable

PARTS = 32
ROW_GROUP = 4_096
COLUMNS = ("subject", "time", "feature", "value")
_BUFFER = 8_192
_SORTS = 2
# A moment is time and feature in one number: 41 bits for seconds since 1970, before it or after, 7 for the feature.
_FEATURE_BITS, _EPOCH = 7, 1 << 40
_MOMENT_BITS = 48
_MOST_SUBJECTS = 1 << (63 - _MOMENT_BITS)


@dataclass(frozen=True)
class Measurements:
    """M measurements: vectors (M,), sorted by all four."""

    subject: np.ndarray
    time: np.ndarray
    feature: np.ndarray
    value: np.ndarray


def part_of(subject: np.ndarray) -> np.ndarray:
    """The part of each patient: a mix of the bits of its number (splitmix64), the same on every machine."""
    return (mix(subject.astype(np.uint64)) % np.uint64(PARTS)).astype(np.int16)


class Scatter:
    """Measurements on their way to the raw file of their part.

    Args:
        out: folder of the raw files.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self._buffers = np.empty((PARTS, _BUFFER, 3), np.int64)
        self._filled = np.zeros(PARTS, np.int64)
        self._files: list[BinaryIO] = []

    def __enter__(self) -> Scatter:
        self._files = [_raw(self._out, part).open("wb", buffering=0) for part in range(PARTS)]
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        try:
            for part in range(PARTS if kind is None else 0):
                self._empty(part)
        finally:
            for file in self._files:
                file.close()

    def add(self, subject: np.ndarray, time: np.ndarray, feature: np.ndarray, value: np.ndarray) -> None:
        """Takes some measurements, vectors (R,): identifiers, seconds since 1970, indices, numbers."""
        rows = [np.ascontiguousarray(column, kind) for column, kind in zip(
            (subject, time, feature, value), (np.int64, np.int64, np.int8, np.float64), strict=True)]
        at = 0
        while at < subject.size:
            at, full = _scatter(*rows, at, self._buffers, self._filled)
            if full >= 0:
                self._empty(full)

    def _empty(self, part: int) -> None:
        self._files[part].write(self._buffers[part, :self._filled[part]].tobytes())
        self._filled[part] = 0


def sort_parts(out: Path) -> pa.Table:
    """Sorts all raw files for good, two at a time; writes and returns the patients: subject, part, start, rows,
    digest."""
    with ThreadPoolExecutor(_SORTS) as pool:
        patients = pa.concat_tables(pool.map(lambda part: _sort_part(out, part), range(PARTS)))
    pq.write_table(patients, out / "patients.parquet")
    return patients


def _sort_part(out: Path, part: int) -> pa.Table:
    raw = _raw(out, part)
    subjects, ranks, moment, value = _in_order(raw)
    feature = (moment & ((1 << _FEATURE_BITS) - 1)).astype(np.int8)
    time = (moment >> _FEATURE_BITS) - _EPOCH
    table = pa.table(dict(zip(COLUMNS, (subjects[ranks], time, feature, value), strict=True)))
    pq.write_table(table, out / _name(part), compression="lz4", row_group_size=ROW_GROUP, write_statistics=False,
                   use_dictionary=["subject", "feature", "value"], column_encoding={"time": "DELTA_BINARY_PACKED"})
    raw.unlink()
    starts = np.searchsorted(ranks, np.arange(subjects.size + 1))
    digests = np.add.reduceat(mix(mix(moment.view(np.uint64)) + value.view(np.uint64)), starts[:-1]) if (
        subjects.size) else np.empty(0, np.uint64)
    return pa.table({"subject": subjects, "part": np.full(subjects.size, part, np.int16), "start": starts[:-1],
                     "rows": np.diff(starts), "digest": digests})


def read_part(folder: Path, part: int, starts: np.ndarray, rows: np.ndarray) -> Measurements:
    """The measurements of some patients of a part, and of those who share a row group with them.

    Args:
        starts, rows: of these patients, as `patients.parquet` holds them.
    """
    path = folder / _name(part)
    with pq.ParquetFile(seekable(path), memory_map=is_local(path)) as file:
        wanted = np.zeros(file.num_row_groups + 1, np.int64)
        size = file.metadata.row_group(0).num_rows if file.num_row_groups else ROW_GROUP
        np.add.at(wanted, starts // size, 1)
        np.add.at(wanted, (starts + rows - 1) // size + 1, -1)
        groups = np.flatnonzero(np.cumsum(wanted[:-1]))
        table = file.read_row_groups(groups.tolist(), columns=list(COLUMNS), use_threads=False)
    return Measurements(*(table[name].to_numpy() for name in COLUMNS))


def joined(tables: Sequence[Measurements]) -> tuple[Measurements, np.ndarray]:
    """One after the other, and where each begins, (T + 1,)."""
    starts = np.cumsum([0, *(table.subject.size for table in tables)])
    return Measurements(*(np.concatenate([getattr(table, name) for table in tables]) for name in COLUMNS)), starts


def _in_order(raw: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(P,) patients; (M,) whose each measurement is, its moment and value, sorted by all three.

    What is not needed any more is let go at once: two parts are sorted at a time, and memory is what limits them.
    """
    rows = np.fromfile(raw, np.int64).reshape(-1, 3)
    subjects = np.unique(rows[:, 0])
    key, value = np.searchsorted(subjects, rows[:, 0]), rows[:, 2].copy().view(np.float64)
    if subjects.size >= _MOST_SUBJECTS:
        order = np.lexsort((value, rows[:, 1], key))
        return subjects, key[order], rows[order, 1], value[order]
    key <<= _MOMENT_BITS
    key |= rows[:, 1]
    del rows
    order = np.argsort(key)
    key = key[order]
    same = key[1:] == key[:-1]
    tied = np.flatnonzero(np.r_[same, False] | np.r_[False, same])
    value = value[order]
    value[tied] = value[tied][np.lexsort((value[tied], key[tied]))]
    return subjects, key >> _MOMENT_BITS, key & ((1 << _MOMENT_BITS) - 1), value


@njit(nogil=True, cache=True)
def _scatter(subject, time, feature, value, at, buffers, filled):
    """Puts rows into the buffers of their parts until one is full; returns the next row, and the full part or -1."""
    bits = value.view(np.int64)
    for row in range(at, subject.size):
        part = np.int64(_mixed(np.uint64(subject[row])) % np.uint64(PARTS))
        place = filled[part]
        buffers[part, place, 0] = subject[row]
        buffers[part, place, 1] = ((time[row] + _EPOCH) << _FEATURE_BITS) | np.int64(feature[row])
        buffers[part, place, 2] = bits[row]
        filled[part] = place + 1
        if place + 1 == buffers.shape[1]:
            return row + 1, part
    return subject.size, -1


@njit(nogil=True, cache=True)
def _mixed(bits):
    bits = bits + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


@njit(nogil=True, cache=True)
def _mix(bits):
    mixed = np.empty(bits.size, np.uint64)
    for place in range(bits.size):
        mixed[place] = _mixed(bits[place])
    return mixed


def mix(bits: np.ndarray) -> np.ndarray:
    """splitmix64 (Steele, Lea and Flood 2014) of each, (N,) uint64."""
    mixed: np.ndarray = _mix(bits)
    return mixed


def _name(part: int) -> str:
    return f"part-{part:03d}.parquet"


def _raw(out: Path, part: int) -> Path:
    return out / f"raw-{part:03d}.bin"
