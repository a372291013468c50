"""Measurements of some patients to daily records: window, repeats, sums, bounds, means (method, section 2).

In: measurements of each table, by subject and time, and the windows of these patients' stays. Out: daily records, and
how many measurements each rule met, by patient. All of it works on whole columns; a value is the mean of the day
(numeric) or its last one (ordinal; of several at one moment the larger).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import polars as pl

from contracts.features import Catalogue
from ehr.sources.parts import mix

COUNTS = ("measurements", "outside", "repeated", "summed", "fractions")
_DAY = 86_400
# Seconds since 1970 fit into 36 bits for the next two thousand years.
_TIME_BITS = 36


class Rules(Protocol):
    """What a source knows of its features.

    Attributes:
        catalogue: whose features they are.
        fractions: index of a feature to the range whose values are fractions of one.
        sums: index of a feature to those of its parts.
        digest: of all that turns rows of the source into measurements.
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
    """W stays, by subject and begin: vectors (W,); `subjects` (P,) are the distinct ones, `owner` (W,) their index."""

    stay: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    subjects: np.ndarray
    owner: np.ndarray

    @staticmethod
    def of(frame: pl.DataFrame) -> Windows:
        """From a frame with stay, subject, begin, end."""
        subjects, owner = np.unique(frame["subject"].to_numpy(), return_inverse=True)
        return Windows(frame["stay"].to_numpy(), frame["begin"].to_numpy(), frame["end"].to_numpy(), subjects, owner)


@dataclass(frozen=True)
class _Events:
    """E measurements inside windows: vectors (E,), by window and time."""

    window: np.ndarray
    time: np.ndarray
    feature: np.ndarray
    value: np.ndarray

    def where(self, chosen: np.ndarray) -> _Events:
        return _Events(self.window[chosen], self.time[chosen], self.feature[chosen], self.value[chosen])

    def moment(self) -> np.ndarray:
        """(E,) one number for window and time."""
        key: np.ndarray = (self.window << _TIME_BITS) + self.time
        return key


def aggregate(measured: Sequence[pl.DataFrame], windows: Windows, rules: Rules) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Daily records and counts.

    Args:
        measured: for each table subject, time [s], feature, value, sorted by all four; subjects are those of `windows`.

    Returns:
        subject, stay, date and the F features; and subject, COUNTS and implausible values of each feature.
    """
    tally = _Tally(windows, rules.catalogue)
    events = _joined([_inside(frame, windows, tally) for frame in measured], tally)
    for total, parts in rules.sums.items():
        events = _summed(events, total, parts, tally)
    value = events.value
    for feature, (low, high) in rules.fractions.items():
        fraction = (events.feature == feature) & (value >= low) & (value <= high)
        tally.add("fractions", events.window[fraction])
        value = np.where(fraction, value * 100.0, value)
    lows, highs = (np.array([getattr(item, name) for item in rules.catalogue]) for name in ("low", "high"))
    holds = (value >= lows[events.feature]) & (value <= highs[events.feature])
    tally.implausible(events.where(~holds))
    days = _days(events, value, holds, windows, rules.catalogue)
    return days, tally.frame()


class _Tally:
    """Counts by patient: (P, C) in the order of COUNTS and of the features."""

    def __init__(self, windows: Windows, catalogue: Catalogue) -> None:
        self._windows, self._names = windows, (*COUNTS, *catalogue.names)
        self._counts = np.zeros((len(self._names), windows.subjects.size), np.int64)

    def by_owner(self, name: str, owner: np.ndarray) -> None:
        self._counts[self._names.index(name)] += np.bincount(owner, minlength=self._windows.subjects.size)

    def add(self, name: str, window: np.ndarray) -> None:
        self.by_owner(name, self._windows.owner[window])

    def implausible(self, events: _Events) -> None:
        width = self._windows.subjects.size
        cell = events.feature.astype(np.int64) * width + self._windows.owner[events.window]
        features = len(self._names) - len(COUNTS)
        self._counts[len(COUNTS):] += np.bincount(cell, minlength=features * width).reshape(features, width)

    def frame(self) -> pl.DataFrame:
        return pl.DataFrame({"subject": self._windows.subjects,
                             **{name: self._counts[place] for place, name in enumerate(self._names)}})


def _inside(frame: pl.DataFrame, windows: Windows, tally: _Tally) -> _Events:
    """Measurements inside a window of their patient, without repeats."""
    subject, time = frame["subject"].to_numpy(), frame["time"].to_numpy()
    owner = np.searchsorted(windows.subjects, subject)
    tally.by_owner("measurements", owner)
    begins = (windows.owner.astype(np.int64) << _TIME_BITS) + windows.begin
    window = np.searchsorted(begins, (owner.astype(np.int64) << _TIME_BITS) + time, side="right") - 1
    inside = (window >= 0) & (windows.owner[window] == owner) & (time <= windows.end[window])
    tally.by_owner("outside", owner[~inside])
    feature, value = frame["feature"].to_numpy().astype(np.int64), frame["value"].to_numpy()
    events = _Events(window, time, feature, value).where(inside)
    again = np.zeros(events.window.size, np.bool_)
    if again.size:
        again[1:] = ((events.window[1:] == events.window[:-1]) & (events.time[1:] == events.time[:-1])
                     & (events.feature[1:] == events.feature[:-1]) & (events.value[1:] == events.value[:-1]))
    tally.add("repeated", events.window[again])
    return events.where(~again)


def _joined(tables: Sequence[_Events], tally: _Tally) -> _Events:
    """All tables together; what one table repeats of an earlier one is left out."""
    kept: list[_Events] = []
    for events in tables:
        if kept and events.window.size:
            shared = np.unique(events.feature)
            earlier = [table.where(np.isin(table.feature, shared)) for table in kept]
            again = np.isin(_hash(events), np.concatenate([_hash(table) for table in earlier]))
            tally.add("repeated", events.window[again])
            events = events.where(~again)
        kept.append(events)
    return _Events(*(np.concatenate([getattr(table, name) for table in kept])
                     for name in ("window", "time", "feature", "value")))


def _hash(events: _Events) -> np.ndarray:
    mixed = mix(events.moment().view(np.uint64))
    return mix(mixed + mix(events.feature.view(np.uint64)) + mix(np.ascontiguousarray(events.value).view(np.uint64)))


def _summed(events: _Events, total: int, parts: Sequence[int], tally: _Tally) -> _Events:
    """Adds the sum of the parts wherever all of them were charted at one moment (of several values the larger)."""
    moments, sums = None, np.empty(0)
    for part in parts:
        rows = events.where(events.feature == part)
        # Sorted by value within a moment: the last of equal moments is the largest.
        distinct, place = np.unique(rows.moment()[::-1], return_index=True)
        value = rows.value[::-1][place]
        if moments is None:
            moments, sums = distinct, value
        else:
            moments, left, right = np.intersect1d(moments, distinct, assume_unique=True, return_indices=True)
            sums = sums[left] + value[right]
    if moments is None or not moments.size:
        return events
    window, time = moments >> _TIME_BITS, moments & ((1 << _TIME_BITS) - 1)
    tally.add("summed", window)
    extra = _Events(window, time, np.full(window.size, total, np.int64), sums)
    return _Events(*(np.concatenate([getattr(events, name), getattr(extra, name)])
                     for name in ("window", "time", "feature", "value")))


def _days(events: _Events, value: np.ndarray, holds: np.ndarray, windows: Windows,
          catalogue: Catalogue) -> pl.DataFrame:
    """One row a day with any measurement, plausible or not."""
    day_key = (events.window << 20) + events.time // _DAY
    keys, row = np.unique(day_key, return_inverse=True)
    width = len(catalogue.names)
    cell = (row * width + events.feature)[holds]
    kept, size = value[holds], keys.size * width
    ordinal = np.array([item.kind == "ordinal" for item in catalogue])[events.feature[holds]]
    counts = np.bincount(cell[~ordinal], minlength=size)
    sums = np.bincount(cell[~ordinal], weights=kept[~ordinal], minlength=size)
    values = np.divide(sums, counts, out=np.full(size, np.nan), where=counts > 0)
    # Of several values of one cell NumPy keeps the one assigned last: the latest, and of one moment the larger.
    order = np.lexsort((kept[ordinal], events.moment()[holds][ordinal]))
    values[cell[ordinal][order]] = kept[ordinal][order]
    window, day = keys >> 20, keys & ((1 << 20) - 1)
    frame = pl.DataFrame(values.reshape(keys.size, width), schema=dict.fromkeys(catalogue.names, pl.Float64),
                         nan_to_null=True)
    return pl.DataFrame({"subject": windows.subjects[windows.owner[window]], "stay": windows.stay[window],
                         "date": day.astype("datetime64[D]").astype("datetime64[ms]")}).with_columns(
        pl.col("date").cast(pl.Date)).hstack(frame)
