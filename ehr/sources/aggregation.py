"""Measurements of some patients to daily records: window, repeats, sums, bounds, means (method, section 2).

In: measurements of each table, sorted, and the windows of these patients' stays. Out: daily records, and how many
measurements each rule met, by patient. A value is the mean of the day (numeric) or its last one (ordinal; of several at
one moment the larger). One compiled pass merges the tables patient by patient; it runs without the GIL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import polars as pl
from numba import njit

from contracts.features import Catalogue
from ehr.sources.parts import COLUMNS, Measurements, joined

COUNTS = ("measurements", "outside", "repeated", "summed", "fractions")
_MEASUREMENTS, _OUTSIDE, _REPEATED, _SUMMED, _FRACTIONS = range(len(COUNTS))
_DAY = 86_400


class Rules(Protocol):
    """What a source knows of its features.

    Attributes:
        catalogue: whose features they are.
        fractions: index of a feature to the range whose values are fractions of one.
        sums: index of a feature to those of its parts.
        digest: of all that turns rows of the source into measurements, the order of the features included.
    """

    @property
    def catalogue(self) -> Catalogue: ...
    @property
    def fractions(self) -> Mapping[int, tuple[float, float]]: ...
    @property
    def sums(self) -> Mapping[int, tuple[int, ...]]: ...
    @property
    def digest(self) -> str: ...


@dataclass(frozen=True)
class Windows:
    """W stays, by subject and begin: vectors (W,); `subjects` (P,) are the distinct ones, `first` (P + 1,) where the
    windows of each begin."""

    stay: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    subjects: np.ndarray
    first: np.ndarray

    @staticmethod
    def of(frame: pl.DataFrame) -> Windows:
        """From a frame with stay, subject, begin, end, sorted by subject and begin."""
        subjects, first = np.unique(frame["subject"].to_numpy(), return_index=True)
        return Windows(frame["stay"].to_numpy(), frame["begin"].to_numpy(), frame["end"].to_numpy(), subjects,
                       np.append(first, frame.height))


@dataclass(frozen=True)
class Daily:
    """R stay-days of P patients.

    Attributes:
        subject, stay, day: (R,); day counts from 1970 on. values: (R, F), NaN = not measured that day.
        subjects: (P,). counts: (P, C): COUNTS, then implausible values of each feature.
    """

    subject: np.ndarray
    stay: np.ndarray
    day: np.ndarray
    values: np.ndarray
    subjects: np.ndarray
    counts: np.ndarray


def aggregate(tables: Sequence[Measurements], windows: Windows, rules: Rules) -> Daily:
    """Daily records and counts of the patients of `windows`; others in `tables` are passed over."""
    measured, starts = joined(tables)
    window, day, values, counts = _aggregate(
        *(getattr(measured, name) for name in COLUMNS), starts, windows.subjects, windows.first, windows.begin,
        windows.end, *_plain(rules))
    owner = np.searchsorted(windows.first, window, side="right") - 1
    return Daily(windows.subjects[owner], windows.stay[window], day, values, windows.subjects, counts)


def _plain(rules: Rules) -> tuple[np.ndarray, ...]:
    """Bounds (F, 2), range of fractions (F, 2), which features are ordinal (F,), and sums: (S, F + 1) the feature of
    the total, then which features are its parts."""
    items = list(rules.catalogue)
    bounds = np.array([(item.low, item.high) for item in items], np.float64)
    fractions = np.tile(np.array([np.inf, -np.inf]), (len(items), 1))
    for feature, span in rules.fractions.items():
        fractions[feature] = span
    sums = np.zeros((len(rules.sums), len(items) + 1), np.int64)
    for row, (total, parts) in zip(sums, rules.sums.items(), strict=True):
        row[0] = total
        row[1 + np.asarray(parts)] = 1
    return bounds, fractions, np.array([item.kind == "ordinal" for item in items]), sums


@njit(nogil=True, cache=True)
def _aggregate(subject, time, feature, value, starts, subjects, first, begin, end, bounds, fractions, ordinal, sums):
    """Window and day of each record, its values, and counts by patient."""
    features, counts = ordinal.size, np.zeros((subjects.size, 5 + ordinal.size), np.int64)
    out = np.full((first[-1] * 8 + 1024, features), np.nan)
    out_window, out_day = np.empty(out.shape[0], np.int64), np.empty(out.shape[0], np.int64)
    rows = 0
    at, stop = starts[:-1].copy(), starts[:-1].copy()
    number, latest, charted = np.zeros(features), np.zeros(features, np.int64), np.zeros(features, np.bool_)
    for patient in range(subjects.size):
        who = subjects[patient]
        for table in range(at.size):
            place = stop[table]
            while place < starts[table + 1] and subject[place] < who:
                place += 1
            at[table] = place
            while place < starts[table + 1] and subject[place] == who:
                place += 1
            stop[table] = place
        window, row = first[patient], -1
        last_time, last_feature, last_value = np.int64(0), np.int64(-1), 0.0
        while True:
            event = _next(at, stop, time, feature, value)
            if event < 0:
                break
            now, what, read = time[event], np.int64(feature[event]), value[event]
            counts[patient, _MEASUREMENTS] += 1
            later = window
            while later + 1 < first[patient + 1] and begin[later + 1] <= now:
                later += 1
            # What was charted at a moment is summed once the moment, or the stay, is over.
            if row >= 0 and (later != window or now != last_time):
                _sum(sums, charted, number, out[row], latest, last_time, counts[patient], bounds, fractions, ordinal)
                charted[:] = False
            if later != window:
                _close(out, row, ordinal, latest)
                window, row, last_feature = later, -1, -1
            if now < begin[window] or now > end[window]:
                counts[patient, _OUTSIDE] += 1
                continue
            if what == last_feature and now == last_time and read == last_value:
                counts[patient, _REPEATED] += 1
                continue
            day = now // _DAY
            if row < 0 or day != out_day[row]:
                _close(out, row, ordinal, latest)
                row, rows = rows, rows + 1
                if rows > out.shape[0]:
                    out, out_window, out_day = _doubled(out, out_window, out_day)
                out_window[row], out_day[row] = window, day
            last_time, last_feature, last_value = now, what, read
            if _put(what, read, now, out[row], latest, counts[patient], bounds, fractions, ordinal):
                charted[what], number[what] = True, read
        if row >= 0:
            _sum(sums, charted, number, out[row], latest, last_time, counts[patient], bounds, fractions, ordinal)
            charted[:] = False
            _close(out, row, ordinal, latest)
    return out_window[:rows], out_day[:rows], out[:rows], counts


@njit(nogil=True, cache=True)
def _next(at, stop, time, feature, value):
    """The earliest row not yet taken (of one time the lower feature, then the smaller value), -1 if there is none."""
    best, table = np.int64(-1), 0
    for other in range(at.size):
        row = at[other]
        if row < stop[other] and (best < 0 or time[row] < time[best] or (time[row] == time[best] and (
                feature[row] < feature[best] or (feature[row] == feature[best] and value[row] < value[best])))):
            best, table = row, other
    if best >= 0:
        at[table] += 1
    return best


@njit(nogil=True, cache=True)
def _put(what, read, now, row, latest, counts, bounds, fractions, ordinal):
    """One value into its day, if it is within bounds; is it?

    `latest` is the time of an ordinal value, the number of the others summed so far.
    """
    if fractions[what, 0] <= read <= fractions[what, 1]:
        counts[_FRACTIONS] += 1
        read *= 100.0
    if not bounds[what, 0] <= read <= bounds[what, 1]:
        counts[_FRACTIONS + 1 + what] += 1
        return False
    if not ordinal[what]:
        latest[what] = 1 if np.isnan(row[what]) else latest[what] + 1
        row[what] = read if latest[what] == 1 else row[what] + read
    elif np.isnan(row[what]) or now > latest[what] or read > row[what]:
        row[what], latest[what] = read, now
    return True


@njit(nogil=True, cache=True)
def _sum(sums, charted, number, row, latest, now, counts, bounds, fractions, ordinal):
    """The totals whose parts were all charted within bounds at a moment; `number` holds the largest such value of each
    feature there."""
    for index in range(sums.shape[0]):
        whole, total = True, 0.0
        for part in range(charted.size):
            if sums[index, 1 + part]:
                whole &= charted[part]
                total += number[part]
        if whole:
            counts[_SUMMED] += 1
            _put(sums[index, 0], total, now, row, latest, counts, bounds, fractions, ordinal)


@njit(nogil=True, cache=True)
def _close(out, row, ordinal, latest):
    """Sums of a day to means."""
    if row >= 0:
        for what in range(ordinal.size):
            if not ordinal[what] and not np.isnan(out[row, what]):
                out[row, what] /= latest[what]


@njit(nogil=True, cache=True)
def _doubled(out, window, day):
    """The same records with as much room again."""
    size = day.size
    wider = np.full((2 * size, out.shape[1]), np.nan)
    wider[:size] = out
    return wider, np.append(window, np.empty(size, np.int64)), np.append(day, np.empty(size, np.int64))
