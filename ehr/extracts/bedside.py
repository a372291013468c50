"""Bedside: the hours of ICU stays, the 17 signs in each of them, and the rows that measurements are made of.

In: a `People`. Out: `Hours`, cut into pieces of bounded size; `signs`, in the units of catalogue mimic_iv; and `Rows`,
the form in which measurements are still numbers and indices of words. Severity moves the signs from a quarter of its
full shift in the first hour to all of it in the last one, as in `ehr.sources.synthetic`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from ehr.extracts.people import HOUR, MINUTE, STAY_MEDIAN, STAY_SPREAD, People
from ehr.sources.physiology import BASELINES, PROCESSES, measured_signs

# Mean of the lognormal stay; the limits of its length change it by less than 1 %.
MEAN_HOURS = 24 * STAY_MEDIAN * float(np.exp(STAY_SPREAD**2 / 2))
_FIRST_COURSE = 0.25
_ON_THE_HOUR = 0.8


@dataclass(frozen=True)
class Hours:
    """H whole hours of stays, sorted by stay: index of the stay, hour from its begin, share of it gone (0 to 1)."""

    stay: np.ndarray
    hour: np.ndarray
    gone: np.ndarray


@dataclass(frozen=True)
class Rows:
    """R measurements: vectors (R,).

    Attributes:
        stay, item, unit: indices of the stay, of the item in its list and of its unit in the vocabulary.
        time: second since 1970.
        number: NaN where there is none.
        text: index in the vocabulary of what stands for the number, 0 where the number itself does.
        stamp: 32 random bits from which what nobody studies (caregivers, delays) is made; equal in all rows that are
            charted at once.
        serial: number of the row in its piece; equal in duplicates.
        kind: kind of dirt, 0 for a clean row (see `ehr.extracts.dirt`).
    """

    stay: np.ndarray
    item: np.ndarray
    unit: np.ndarray
    time: np.ndarray
    number: np.ndarray
    text: np.ndarray
    stamp: np.ndarray
    serial: np.ndarray
    kind: np.ndarray

    def take(self, index: np.ndarray) -> Rows:
        """Rows of these indices, in their order."""
        return Rows(**{field.name: getattr(self, field.name)[index] for field in fields(self)})


def pieces(people: People, most: int) -> Iterator[Hours]:
    """All hours of all stays, at most `most` at a time."""
    count = (people.stays.end - people.stays.begin) // HOUR
    ends = count.cumsum()
    for first in range(0, int(count.sum()), most):
        place = np.arange(first, min(first + most, int(ends[-1])))
        stay = np.searchsorted(ends, place, side="right")
        hour = place - (ends - count)[stay]
        yield Hours(stay=stay, hour=hour, gone=hour / np.maximum(count[stay] - 1, 1))


def signs(people: People, hours: Hours, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The 17 signs in each hour, (H,) each."""
    admission = people.stays.admission[hours.stay]
    usual = people.patients.usual[people.admissions.patient[admission]]
    severity = people.admissions.severity[admission]
    course = _FIRST_COURSE + (1 - _FIRST_COURSE) * hours.gone
    latent = {}
    for index, (name, base) in enumerate(BASELINES.items()):
        shift = severity @ np.array([process.shifts.get(name, 0.0) for process in PROCESSES])
        latent[name] = usual[:, index] + shift * course + base.within * rng.normal(size=course.size)
    return measured_signs(latent, rng)


def charted_at(people: People, hours: Hours, which: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Seconds within the hours of index `which`, whole minutes, most often on the full hour; always inside the stay.

    What is not charted on the hour shares one of two other minutes of it: people chart in rounds. So a moment has some
    18 rows of chartevents, as in the MIMIC-IV demo.
    """
    stay, hour = hours.stay[which], hours.hour[which]
    begin = people.stays.begin[stay] + HOUR * hour
    full = (begin + HOUR) // HOUR * HOUR
    round_ = mixed(people.stays.stay[stay], hour, rng.integers(0, 2, which.size))
    other = (begin + MINUTE + round_ % (HOUR - MINUTE) + MINUTE - 1) // MINUTE * MINUTE
    other = np.minimum(other, begin + HOUR) // MINUTE * MINUTE
    return np.where(rng.random(which.size) < _ON_THE_HOUR, full, other)


def mixed(*numbers: np.ndarray) -> np.ndarray:
    """32 bits that look random and are the same for the same integers; (R,) each."""
    bits = np.zeros(numbers[0].shape, np.uint64)
    for part in numbers:
        bits = (bits ^ part.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        bits ^= bits >> np.uint64(29)
    return (bits * np.uint64(0xBF58476D1CE4E5B9) >> np.uint64(32)).astype(np.int64)


def assemble(parts: Sequence[Rows], people: People) -> Rows:
    """Joins rows and stamps them."""
    rows = Rows(**{field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Rows)})
    return replace(rows, stamp=mixed(people.stays.stay[rows.stay], rows.time), serial=np.arange(rows.stay.size))


def unstamped(stay: np.ndarray, item: np.ndarray, unit: np.ndarray, time: np.ndarray, number: np.ndarray,
              text: np.ndarray) -> Rows:
    """Clean rows before they are assembled."""
    nothing = np.zeros(stay.size, np.int64)
    return Rows(stay=stay, item=item, unit=unit, time=time, number=number, text=text, stamp=nothing, serial=nothing,
                kind=np.zeros(stay.size, np.int8))


def filed(rows: Rows, people: People) -> Rows:
    """Rows by patient and time, what was charted at once together: so the real files are."""
    patient = people.admissions.patient[people.stays.admission[rows.stay]]
    return rows.take(np.lexsort((rows.stamp, rows.time, patient)))
