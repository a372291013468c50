"""People: who comes to the hospital, when, how ill they are, and who dies.

In: a seed and the number of a block of `BLOCK` patients. Out: a `People`, pure arrays; times are seconds since 1970.
Blocks have a fixed size and a generator of their own, so that an extract is the same however it is cut for writing.

An admission has the severities of `ehr.sources.hazard`, and they, with the age, decide whether it ends in death:
P(death) = sigmoid(effects + b), b such that MORTALITY of admissions with intensive care end so. What would have come
after a death is taken away.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, TypeVar

import numpy as np

from contracts.features import catalogue
from ehr.sources.hazard import intercept, score_parts, severities, sigmoid
from ehr.sources.physiology import AGE_CENTRE, AGE_SCALE, BASELINES

BLOCK = 256
DAY, HOUR, MINUTE = 86_400, 3_600, 60
STAY_MEDIAN, STAY_SPREAD, STAY_SHORTEST, STAY_LONGEST = 2.0, 0.95, 0.1, 60.0
MORTALITY, STRENGTH = 0.10, 3.0
FIRST_SUBJECT, FIRST_ADMISSION, FIRST_STAY = 10_000_000, 20_000_000, 30_000_000
# Identifiers seem random as the real ones do: n -> n * step mod this prime is one to one.
_PRIME, _STEP = 9_999_991, 6_180_339
# Admissions of a patient, and ICU stays of an admission that has any.
_ADMISSIONS = np.array([0.5, 0.25, 0.12, 0.07, 0.04, 0.02])
_STAYS = np.array([0.9, 0.08, 0.02])
_OTHER_WITH_STAY = 0.24
_READMITTED = 0.3
_DIES_IN_STAY = 0.8
_DIES_LATER = 0.15
_STRAIGHT_IN, _STRAIGHT_OUT = 0.4, 0.12
# Shares of stays with an arterial line and with a ventilator.
LINE, VENTILATOR = 0.3, 0.3
_YEARS = (2110, 2180)

Record = TypeVar("Record", bound=Any)


@dataclass(frozen=True)
class Patients:
    """P patients: vectors (P,); usual (P, B), the resting value of each latent sign of `physiology.BASELINES`.

    `died` is the second of the death wherever it happened, -1 where none is known.
    """

    subject: np.ndarray
    male: np.ndarray
    age: np.ndarray
    year: np.ndarray
    year_group: np.ndarray
    died: np.ndarray
    usual: np.ndarray


@dataclass(frozen=True)
class Admissions:
    """A admissions, sorted by patient and time: vectors (A,), severity (A, S), effects (A, F+1)."""

    patient: np.ndarray
    hadm: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    died: np.ndarray
    severity: np.ndarray
    effects: np.ndarray


@dataclass(frozen=True)
class Stays:
    """S ICU stays, sorted by admission and time: vectors (S,). `line`, `ventilator`: what the patient bears."""

    admission: np.ndarray
    stay: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    line: np.ndarray
    ventilator: np.ndarray


@dataclass(frozen=True)
class People:
    """One block of patients with all that happens to them."""

    patients: Patients
    admissions: Admissions
    stays: Stays


@dataclass
class Numbers:
    """Counters behind the identifiers, carried from block to block."""

    admissions: int = 0
    transfers: int = 0
    labs: int = 0

    def next_admissions(self, count: int) -> np.ndarray:
        """`hadm_id` of the next admissions."""
        self.admissions += count
        return _identifiers(FIRST_ADMISSION, self.admissions - count, count)

    def next_transfers(self, count: int) -> np.ndarray:
        """`transfer_id` of the next transfers; a `stay_id` is the `transfer_id` of the stay's first transfer."""
        self.transfers += count
        return _identifiers(FIRST_STAY, self.transfers - count, count)

    def next_labs(self, count: int) -> int:
        """The first of the next `labevent_id`s."""
        self.labs += count
        return self.labs - count + 1


def _identifiers(first: int, begin: int, count: int) -> np.ndarray:
    return first + np.arange(begin, begin + count, dtype=np.int64) * _STEP % _PRIME


def draw(block: int, most: int, groups: int, numbers: Numbers, rng: np.random.Generator) -> People:
    """Draws a block of patients with at most `most` ICU stays; each patient that is left has one.

    Args:
        block: number of the block; it decides the subject ids.
        most: stays that are still wanted, at least 1.
        groups: number of anchor year groups.
        numbers: counters for identifiers; moved on.
        rng: generator of this block.
    """
    patients = _patients(block, groups, rng)
    admissions, stays = _timeline(patients, rng)
    admissions, stays = _with_deaths(admissions, stays, rng)
    if stays.begin.size > most:
        admissions, stays = _up_to(np.arange(admissions.begin.size) <= stays.admission[most - 1], admissions,
                                   _take(stays, np.arange(most)))
    here, patient = np.unique(admissions.patient, return_inverse=True)
    admissions = replace(admissions, patient=patient, hadm=numbers.next_admissions(patient.size))
    stays = replace(stays, stay=numbers.next_transfers(stays.begin.size))
    return People(_with_dates_of_death(_take(patients, here), admissions, rng), admissions, stays)


def _patients(block: int, groups: int, rng: np.random.Generator) -> Patients:
    age = np.round(np.clip(rng.normal(AGE_CENTRE, AGE_SCALE, BLOCK), 18, 91)).astype(np.int64)
    # Ages over 89 are all written as 91.
    age[age > 89] = 91
    male, tension, decades = rng.random(BLOCK) < 0.56, rng.normal(size=BLOCK), (age - AGE_CENTRE) / 10
    usual = [base.mean + base.between * rng.normal(size=BLOCK) + base.arousal * tension + base.male * male
             + base.per_decade * decades for base in BASELINES.values()]
    return Patients(subject=FIRST_SUBJECT + 3 * (block * BLOCK + np.arange(BLOCK)), male=male, age=age,
                    year=rng.integers(*_YEARS, BLOCK), year_group=rng.integers(0, groups, BLOCK),
                    died=np.full(BLOCK, -1), usual=np.stack(usual, axis=1))


def _timeline(patients: Patients, rng: np.random.Generator) -> tuple[Admissions, Stays]:
    """Admissions and stays as they would be if nobody died."""
    each = 1 + rng.choice(_ADMISSIONS.size, BLOCK, p=_ADMISSIONS)
    patient = np.repeat(np.arange(BLOCK), each)
    with_stay = rng.random(patient.size) < _OTHER_WITH_STAY
    with_stay[each.cumsum() - each + (rng.random(BLOCK) * each).astype(np.int64)] = True
    admission = np.repeat(np.arange(patient.size), np.where(with_stay, 1 + rng.choice(3, patient.size, p=_STAYS), 0))
    stays, left = _stay_times(admission, patient.size, rng)
    ward = _days(2.5, 0.8, patient.size, rng)
    out = left + np.where(with_stay & (rng.random(patient.size) < _STRAIGHT_OUT), 0, ward)
    soon = rng.random(patient.size) < _READMITTED
    later = np.minimum(30 + rng.exponential(300, patient.size), 1000)
    away = DAY * np.where(soon, rng.uniform(1, 30, patient.size), later)
    opening = patients.year.astype(str).astype("datetime64[s]").astype(np.int64) + rng.integers(0, 364 * DAY, BLOCK)
    begin = (opening[patient] + _before(out + away.astype(np.int64), patient)) // MINUTE * MINUTE
    years = begin.astype("datetime64[s]").astype("datetime64[Y]").astype(np.int64) + 1970 - patients.year[patient]
    severity = severities(patient.size, rng)
    scale, _ = _reference()
    effects = scale * score_parts(patients.age[patient] + years, severity, catalogue("mimic_iv").tokens)
    admissions = Admissions(patient=patient, hadm=np.zeros_like(patient), begin=begin,
                            end=(begin + out) // MINUTE * MINUTE, died=np.zeros(patient.size, bool), severity=severity,
                            effects=effects)
    return admissions, replace(stays, begin=stays.begin + begin[admission], end=stays.end + begin[admission])


def _stay_times(admission: np.ndarray, admissions: int, rng: np.random.Generator) -> tuple[Stays, np.ndarray]:
    """Stays in seconds from the begin of their admission, and the second in which the last one ends, (A,)."""
    count = admission.size
    first = np.r_[True, admission[1:] != admission[:-1]]
    length = np.clip(STAY_MEDIAN * np.exp(STAY_SPREAD * rng.normal(size=count)), STAY_SHORTEST, STAY_LONGEST)
    length = (length * DAY).astype(np.int64)
    straight = first & (rng.random(count) < _STRAIGHT_IN)
    wait = np.where(straight, rng.integers(0, 10 * MINUTE, count), np.where(first, _days(0.4, 0.8, count, rng),
                                                                           _days(1.5, 0.8, count, rng)))
    end = _before(length + wait, admission) + length + wait
    stays = Stays(admission=admission, stay=np.zeros_like(admission), begin=end - length, end=end,
                  line=rng.random(count) < LINE, ventilator=rng.random(count) < VENTILATOR)
    return stays, np.bincount(admission, length + wait, admissions).astype(np.int64)


def _days(median: float, spread: float, count: int, rng: np.random.Generator) -> np.ndarray:
    """Lognormal spans of at most 60 days and at least two hours, in seconds."""
    spans = DAY * median * np.exp(spread * rng.normal(size=count))
    return np.clip(spans, 2 * HOUR, 60 * DAY).astype(np.int64)


def _before(amounts: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Sum of the amounts before each one in its group; groups are adjacent."""
    running = amounts.cumsum() - amounts
    first = np.r_[True, group[1:] != group[:-1]]
    return running - running[first][first.cumsum() - 1]


@cache
def _reference() -> tuple[float, float]:
    """Scale of the score, strength / sd(score), and the intercept b, from a large population that never changes."""
    rng = np.random.default_rng(0)
    age = np.clip(rng.normal(AGE_CENTRE, AGE_SCALE, 20_000), 18, 91)
    score = score_parts(age, severities(age.size, rng), catalogue("mimic_iv").tokens).sum(axis=1)
    scale = STRENGTH / float(score.std())
    return scale, intercept(scale * score, MORTALITY)


def _with_deaths(admissions: Admissions, stays: Stays,
                 rng: np.random.Generator) -> tuple[Admissions, Stays]:
    """Lets admissions with intensive care end in death by their risk, and takes away what would have come after."""
    _, constant = _reference()
    count = admissions.begin.size
    last = np.full(count, -1)
    last[stays.admission] = stays.end
    risk = sigmoid(admissions.effects.sum(axis=1) + constant)
    died = (last >= 0) & (rng.random(count) < risk)
    in_stay = died & (rng.random(count) < _DIES_IN_STAY)
    end = np.where(in_stay, last // MINUTE * MINUTE, admissions.end)
    alive = _before(died.astype(np.int64), admissions.patient) == 0
    return _up_to(alive, replace(admissions, died=died, end=end), stays)


def _up_to(kept: np.ndarray, admissions: Admissions, stays: Stays) -> tuple[Admissions, Stays]:
    """Keeps some of the admissions, (A,) bool, and their stays."""
    stays = _take(stays, kept[stays.admission])
    return _take(admissions, kept), replace(stays, admission=(kept.cumsum() - 1)[stays.admission])


def _with_dates_of_death(patients: Patients, admissions: Admissions, rng: np.random.Generator) -> Patients:
    """Deaths in hospital, and some of the others within a year after the last discharge."""
    count = patients.subject.size
    last = np.full(count, 0)
    last[admissions.patient] = admissions.end
    in_hospital = np.zeros(count, bool)
    in_hospital[admissions.patient[admissions.died]] = True
    later = np.where(rng.random(count) < _DIES_LATER, last + rng.integers(DAY, 365 * DAY, count), -1)
    return replace(patients, died=np.where(in_hospital, last, later))


def _take(record: Record, rows: np.ndarray) -> Record:
    """Rows of a dataclass of arrays."""
    return replace(record, **{field.name: getattr(record, field.name)[rows] for field in fields(record)})
