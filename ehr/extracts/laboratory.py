"""Laboratory: rows of `hosp/labevents`.

In: `Hours` and their signs. Out: `Rows` of the features and of other results, and the frame they make. A quarter has no
`hadm_id`: half of these were taken before the patient's first admission, the others during a stay.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from ehr.extracts.bedside import Hours, Rows, assemble, charted_at, mixed, unstamped
from ehr.extracts.charting import emptied, worded
from ehr.extracts.dirt import HIDDEN, TEXTS, UNITS
from ehr.extracts.lab_items import COMMENTS, FEATURES, OTHERS, Lab
from ehr.extracts.people import DAY, MINUTE, People
from ehr.extracts.registers import times

LABS: tuple[Lab, ...] = (*FEATURES, *OTHERS)
LAB_IDS = tuple(lab.itemid for lab in LABS)
INTEREST_SHARE = 0.1
PER_HOUR = sum(lab.per_hour for lab in FEATURES) / INTEREST_SHARE
_WORDS = [*TEXTS, *(word for lab in LABS for word in lab.words)]
_WORD_COUNT = np.array([len(lab.words) for lab in LABS])
_FIRST_WORD = len(TEXTS) + _WORD_COUNT.cumsum() - _WORD_COUNT
_UNITS = [*UNITS, *sorted({lab.unit for lab in LABS if lab.unit} - set(UNITS))]
_UNIT = np.array([_UNITS.index(lab.unit) for lab in LABS])
_LOW, _HIGH, _DIGITS, _HIDDEN = (np.array([getattr(lab, name) for lab in LABS], float)
                                 for name in ("low", "high", "digits", "hidden"))
_NORMAL = np.array([lab.normal or (np.nan, np.nan) for lab in LABS], float)
_KIND = np.array([sorted({lab.category for lab in LABS}).index(lab.category) for lab in LABS])
_LONGEST_BEFORE = 200 * DAY
# Blood is drawn in one hour of five.
_DRAWN = 0.2
_PRIORITIES = ("ROUTINE", "STAT", None)


def report(people: People, hours: Hours, signs: dict[str, np.ndarray], rng: np.random.Generator) -> Rows:
    """Draws clean rows (see `ehr.extracts.charting.chart`)."""
    drawn = np.flatnonzero(rng.random(hours.hour.size) < _DRAWN)
    parts = [_feature(people, hours, signs, place, drawn, rng) for place in range(len(FEATURES))]
    rows = assemble([*parts, _others(people, hours, drawn, rng)], people)
    return _partly_outside(rows, people)


def _feature(people: People, hours: Hours, signs: dict[str, np.ndarray], place: int, drawn: np.ndarray,
             rng: np.random.Generator) -> Rows:
    lab = LABS[place]
    which = drawn[rng.random(drawn.size) < lab.per_hour / _DRAWN]
    return _rows(people, hours, which, np.full(which.size, place), signs[lab.sign][which], rng)


def _others(people: People, hours: Hours, drawn: np.ndarray, rng: np.random.Generator) -> Rows:
    which = np.repeat(drawn, rng.poisson((1 - INTEREST_SHARE) * PER_HOUR / _DRAWN, drawn.size))
    weights = np.array([lab.weight for lab in LABS]).cumsum()
    item = np.searchsorted(weights, rng.random(which.size) * weights[-1], side="right")
    scale = 10.0 ** _DIGITS[item]
    number = np.rint((_LOW[item] + (_HIGH - _LOW)[item] * rng.random(which.size)) * scale) / scale + 0.0
    return _rows(people, hours, which, item, number, rng)


def _rows(people: People, hours: Hours, which: np.ndarray, item: np.ndarray, number: np.ndarray,
          rng: np.random.Generator) -> Rows:
    words, chance = _WORD_COUNT[item], rng.random(which.size)
    hidden = np.where(chance < _HIDDEN[item], TEXTS.index(HIDDEN), 0)
    text = np.where(words > 0, _FIRST_WORD[item] + (chance * words).astype(np.int64), hidden)
    return unstamped(hours.stay[which], item, _UNIT[item], charted_at(people, hours, which, rng),
                     np.where(words > 0, np.nan, number), text)


def _without_admission(rows: Rows) -> np.ndarray:
    return rows.stamp % 4 == 0


def _partly_outside(rows: Rows, people: People) -> Rows:
    """Moves half of the rows without an admission to before the patient's first one."""
    patient = people.admissions.patient
    first = people.admissions.begin[np.r_[True, patient[1:] != patient[:-1]]]
    before = first[patient[people.stays.admission[rows.stay]]] - (
        DAY + 17 * rows.stamp % (_LONGEST_BEFORE - DAY))
    away = _without_admission(rows) & (rows.stamp % 8 == 0)
    rows.time[away] = before[away] // MINUTE * MINUTE
    return rows


def lab_frame(rows: Rows, people: People, first: int) -> pl.DataFrame:
    """Columns of `hosp/labevents`; `first` is the first free `labevent_id`."""
    admission, stamp = people.stays.admission[rows.stay], rows.stamp
    number = pl.Series(rows.number, nan_to_null=True)
    low, high = _NORMAL[rows.item].T
    abnormal = (rows.number < low) | (rows.number > high)
    order = pl.Series([f"P{code:03X}{code % 89 + 10}" for code in range(0x400, 0x500)])
    ordered = np.where(stamp % 7 == 0, (stamp >> 5) % len(order), -1)
    return pl.DataFrame({
        "labevent_id": first + rows.serial, "subject_id": people.patients.subject[people.admissions.patient[admission]],
        "hadm_id": emptied(people.admissions.hadm[admission], _without_admission(rows)),
        "specimen_id": 1_000_000 + mixed(stamp, _KIND[rows.item]) % (1 << 26), "itemid": np.array(LAB_IDS)[rows.item],
        "order_provider_id": _chosen(order.to_list(), ordered), "charttime": times(rows.time),
        "storetime": times(rows.time + MINUTE * (5 + (stamp >> 9) % 110)), "value": worded(number, rows.text, _WORDS),
        "valuenum": number, "valueuom": pl.Series(_UNITS, dtype=pl.String).gather(rows.unit),
        "ref_range_lower": pl.Series(low, nan_to_null=True), "ref_range_upper": pl.Series(high, nan_to_null=True),
        "flag": _chosen(["abnormal"], np.where(abnormal, 0, -1)),
        "priority": pl.Series(_PRIORITIES).gather(np.minimum((stamp >> 13) % 5 // 2, 2)),
        "comments": _comments(rows)})


def _comments(rows: Rows) -> pl.Series:
    own = [lab.comment for lab in LABS]
    chance = mixed(rows.stamp, rows.serial)
    chosen = np.where(chance % 8 == 0, len(own) + (chance >> 9) % len(COMMENTS), rows.item)
    return pl.Series([*own, *COMMENTS], dtype=pl.String).gather(chosen)


def _chosen(words: list[str], index: np.ndarray) -> pl.Series:
    """Words of an index, null below zero."""
    return pl.Series([None, *words], dtype=pl.String).gather(index + 1)


def d_labitems() -> pl.DataFrame:
    """The table `hosp/d_labitems`."""
    return pl.DataFrame([(lab.itemid, lab.label, "Blood", lab.category) for lab in LABS],
                        schema=["itemid", "label", "fluid", "category"], orient="row")
