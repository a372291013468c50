"""Charting: rows of `icu/chartevents`.

In: `Hours` and their signs. Out: `Rows` of the features and of what is charted besides, and the frame they make.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from ehr.extracts.bedside import MEAN_HOURS, Hours, Rows, assemble, charted_at, mixed, unstamped
from ehr.extracts.chart_items import FEATURES, INTUBATED, ONCE, OTHERS, Group, Item
from ehr.extracts.dirt import NO_ADMISSION, NO_STAY, TEXTS, UNITS
from ehr.extracts.people import LINE, MINUTE, VENTILATOR, People
from ehr.extracts.registers import times

ITEMS: tuple[Item, ...] = (*(item for group in FEATURES for item in group.items), *OTHERS)
ITEM_IDS = tuple(item.itemid for item in ITEMS)
INTEREST = frozenset(item.itemid for item in ITEMS if item.sign)
_PLACE = {item.itemid: index for index, item in enumerate(ITEMS)}
_WORDS = [*TEXTS, *(text for item in ITEMS for text, _ in item.words)]
_WORD_NUMBERS = np.array([*(np.nan for _ in TEXTS), *(np.nan if number is None else number
                                                       for item in ITEMS for _, number in item.words)])
_WORD_COUNT = np.array([len(item.words) for item in ITEMS])
_FIRST_WORD = len(TEXTS) + _WORD_COUNT.cumsum() - _WORD_COUNT
_UNITS = [*UNITS, *sorted({item.unit for item in ITEMS if item.unit} - set(UNITS))]
_UNIT = np.array([_UNITS.index(item.unit) for item in ITEMS])
_FAHRENHEIT, _INCHES, _POUNDS, _OXYGEN = 223761, 226707, 226531, 223835
# One stay in sixteen has its oxygen charted as a fraction.
_FRACTIONS = 16
_CAREGIVERS = 700


def features_per_stay() -> float:
    """Expected rows of the features in a stay."""
    shares = {"line": LINE, "ventilator": VENTILATOR, "": 1.0}
    times_due = (1.0 if group.every == ONCE else MEAN_HOURS / group.every for group in FEATURES)
    return sum(due * group.share * shares[group.only] * len(group.items)
               for due, group in zip(times_due, FEATURES, strict=True))


def chart(people: People, hours: Hours, signs: dict[str, np.ndarray], others: float, rng: np.random.Generator) -> Rows:
    """Draws clean rows.

    Args:
        people: the block.
        hours: a piece of its hours, H of them.
        signs: the 17 features in each hour, (H,) each.
        others: expected rows of no interest in an hour.
        rng: generator of the piece.
    """
    parts = [part for group in FEATURES for part in _group(people, hours, signs, group, rng)]
    return assemble([*parts, _others(people, hours, others, rng)], people)


def _group(people: People, hours: Hours, signs: dict[str, np.ndarray], group: Group,
           rng: np.random.Generator) -> list[Rows]:
    due = (hours.hour % group.every == 0) & (rng.random(hours.hour.size) < group.share)
    if group.only:
        due &= getattr(people.stays, group.only)[hours.stay]
    which = np.flatnonzero(due)
    time, stay = charted_at(people, hours, which, rng), hours.stay[which]
    rows = []
    for item in group.items:
        index = np.full(which.size, _PLACE[item.itemid])
        number, text = _reading(people, item, stay, signs[item.sign][which])
        rows.append(unstamped(stay, index, _UNIT[index], time, number, text))
    return rows


def _reading(people: People, item: Item, stay: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is charted for a sign: its number (NaN where there is none) and the index of its word (0 likewise)."""
    if item.words:
        first = _FIRST_WORD[_PLACE[item.itemid]]
        if item.words[0][1] is None:
            return np.full(value.size, np.nan), first + value.astype(np.int64)
        word = first + value.astype(np.int64) - 1
        if INTUBATED in dict(item.words):
            word = np.where((value == 1) & people.stays.ventilator[stay], first + len(item.words) - 1, word)
        return value, word
    if item.itemid == _OXYGEN:
        value = np.where(people.stays.stay[stay] % _FRACTIONS == 0, np.round(value / 100, 2), value)
    return _in_unit(item, value), np.zeros(value.size, np.int64)


def _in_unit(item: Item, value: np.ndarray) -> np.ndarray:
    if item.itemid == _FAHRENHEIT:
        return np.round(value * 1.8 + 32, 1)
    if item.itemid == _INCHES:
        return np.round(value / 2.54)
    return np.round(value / 0.45359237, 1) if item.itemid == _POUNDS else value


def _others(people: People, hours: Hours, rate: float, rng: np.random.Generator) -> Rows:
    which = np.repeat(np.arange(hours.hour.size), rng.poisson(rate, hours.hour.size))
    offset = len(ITEMS) - len(OTHERS)
    weights = np.array([item.weight for item in OTHERS]).cumsum()
    item = offset + np.searchsorted(weights, rng.random(which.size) * weights[-1], side="right")
    chance, words = rng.random(which.size), _WORD_COUNT[item]
    text = np.where(words > 0, _FIRST_WORD[item] + (chance * words).astype(np.int64), 0)
    low, high, digits = (np.array([getattr(one, name) for one in ITEMS], float) for name in ("low", "high", "digits"))
    scale = 10.0 ** digits[item]
    number = np.rint((low[item] + (high - low)[item] * chance) * scale) / scale
    # A range that begins below zero must not give a minus zero.
    number = np.where(words > 0, _WORD_NUMBERS[text], number + 0.0)
    return unstamped(hours.stay[which], item, _UNIT[item], charted_at(people, hours, which, rng), number, text)


def chart_frame(rows: Rows, people: People) -> pl.DataFrame:
    """Columns of `icu/chartevents`."""
    admission = people.stays.admission[rows.stay]
    stamp = rows.stamp
    number = pl.Series(rows.number, nan_to_null=True)
    return pl.DataFrame({
        "subject_id": people.patients.subject[people.admissions.patient[admission]],
        "hadm_id": emptied(people.admissions.hadm[admission], rows.kind == NO_ADMISSION),
        "stay_id": emptied(people.stays.stay[rows.stay], rows.kind == NO_STAY),
        "caregiver_id": 10_000 + 127 * (stamp % _CAREGIVERS), "charttime": times(rows.time),
        "storetime": times(rows.time + MINUTE * (1 + (stamp >> 10) % 90)), "itemid": np.array(ITEM_IDS)[rows.item],
        "value": worded(number, rows.text, _WORDS), "valuenum": number,
        "valueuom": pl.Series(_UNITS, dtype=pl.String).gather(rows.unit),
        "warning": (mixed(stamp, rows.serial) % 64 == 0).astype(np.int64)})


def emptied(values: np.ndarray, gone: np.ndarray) -> pl.Series:
    """Identifiers, null where they are gone."""
    return pl.select(pl.when(~pl.lit(gone)).then(pl.lit(values))).to_series()


def worded(number: pl.Series, text: np.ndarray, words: list[str | None]) -> pl.Series:
    """The text of each value: its word, or its number as short as it can be."""
    return pl.select(pl.coalesce(pl.Series(words, dtype=pl.String).gather(text), short(pl.lit(number)))).to_series()


def short(number: pl.Expr) -> pl.Expr:
    """Numbers as text, whole ones without a point."""
    return number.cast(pl.String).str.strip_suffix(".0")


def d_items() -> pl.DataFrame:
    """The table `icu/d_items`."""
    def kind(item: Item) -> str:
        return "Text" if item.words else "Numeric" if item.unit or item.sign else "Checkbox"
    rows = [(item.itemid, item.label, item.abbreviation, "chartevents", item.category, item.unit, kind(item))
            for item in ITEMS]
    names = ["itemid", "label", "abbreviation", "linksto", "category", "unitname", "param_type"]
    frame = pl.DataFrame(rows, schema=names, orient="row", infer_schema_length=None)
    return frame.with_columns(lownormalvalue=None, highnormalvalue=None)
