"""One patient as a person or a program sends it, for a prediction: JSON in; its faults, or a checked `Submission`, out.

    {"age": 63, "sex": "male", "visits": [{"day": 0, "values": {"Heart Rate": 88}}, {"day": 2, "values": {...}}]}

A visit is one calendar day; `day` counts whole days from the first record. What is not named was not measured. The
first visit may be a summary of all earlier days (`"summary": true`), as cohorts have it; its `day` is their mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

from contracts.errors import DataError
from contracts.features import Catalogue, Feature

FORM = '{"age": 63, "sex": "male", "visits": [{"day": 0, "values": {"<feature>": 7.1}}]}'
OLDEST, LAST_DAY, MOST_VISITS = 120.0, 10_000.0, 366
MOST_FINDINGS = 20
_QUOTED = 60
_MEND = "correct the patient's JSON"


@dataclass(frozen=True)
class Submission:
    """A patient that keeps all rules.

    Attributes:
        age: [years]. sex: "male" or "female".
        days: T days since the first record, ascending.
        summary: the first visit sums up all earlier days.
        values: T maps of feature to value in the catalogue's unit; what is missing was not measured.
    """

    age: float
    sex: str
    days: tuple[float, ...]
    summary: bool
    values: tuple[Mapping[str, float], ...]


def submission(patient: object, names: Catalogue, most_visits: int = MOST_VISITS) -> Submission:
    """The patient, checked.

    Raises:
        DataError: the first of its faults.
    """
    faults = findings(patient, names, most_visits)
    if faults:
        raise faults[0]
    known = cast(Mapping[str, Any], patient)
    visits = known["visits"]
    return Submission(float(known["age"]), str(known["sex"]).lower(), tuple(float(one["day"]) for one in visits),
                      bool(visits[0].get("summary", False)),
                      tuple({name: float(value) for name, value in one["values"].items() if value is not None}
                            for one in visits))


def findings(patient: object, names: Catalogue, most_visits: int = MOST_VISITS) -> list[DataError]:
    """What is wrong with a patient's JSON, each with value, rule and next step; at most MOST_FINDINGS."""
    return list(islice(_faults(patient, names, most_visits), MOST_FINDINGS))


def schema(names: Catalogue, most_visits: int = MOST_VISITS) -> dict[str, Any]:
    """The form as JSON Schema, with unit, plausible range and reference interval (`x-normal`) of each feature."""
    values = {"type": "object", "additionalProperties": False,
              "properties": {one.name: _property(one) for one in names},
              "description": "Feature to value; what is missing or null was not measured that day."}
    visit = {"type": "object", "additionalProperties": False, "required": ["day", "values"], "properties": {
        "day": {"type": "number", "minimum": 0, "maximum": LAST_DAY, "x-unit": "days",
                "description": "Whole days since the first record, ascending; of a summary, the mean of its days."},
        "summary": {"type": "boolean", "default": False, "description": "First visit only: sums up all earlier days."},
        "values": values}}
    return {"type": "object", "title": "Patient", "additionalProperties": False, "required": ["age", "sex", "visits"],
            "properties": {
                "age": {"type": "number", "minimum": 0, "maximum": OLDEST, "x-unit": "years", "description": "Years."},
                "sex": {"type": "string", "enum": ["female", "male"]},
                "visits": {"type": "array", "minItems": 1, "maxItems": most_visits, "items": visit,
                           "description": "One for each calendar day, oldest first."}}}


def _property(feature: Feature) -> dict[str, Any]:
    normal = {"x-normal": list(feature.normal)} if feature.normal else {}
    usual = f"; reference interval {feature.normal[0]:g} to {feature.normal[1]:g}" if feature.normal else ""
    return {"type": ["number", "null"], "minimum": feature.low, "maximum": feature.high, "x-unit": feature.unit,
            "description": f"{feature.unit or 'no unit'}{usual}.", **normal}


def _faults(patient: object, names: Catalogue, most_visits: int) -> Iterator[DataError]:
    if not isinstance(patient, Mapping):
        yield DataError(f"the patient is a {type(patient).__name__}", f"of the form {FORM}", _MEND)
        return
    yield from _unknown_keys(patient, ("age", "sex", "visits"), "the patient")
    yield from _outside(patient.get("age"), "age", 0.0, OLDEST, "years")
    if str(patient.get("sex", "")).lower() not in ("male", "female"):
        yield DataError(f"sex = {_quoted(patient.get('sex'))}", 'sex is "male" or "female"', _MEND)
    visits = patient.get("visits")
    if not isinstance(visits, list) or not visits:
        yield DataError(f"visits = {_quoted(visits)}", "a list of at least one visit", f"write {FORM}")
    elif len(visits) > most_visits:
        yield DataError(f"{len(visits)} visits", f"at most {most_visits} (api.visits)",
                        "send one visit for each calendar day, and the newest of them")
    else:
        yield from _visit_faults(visits, names)


def _visit_faults(visits: list[Any], names: Catalogue) -> Iterator[DataError]:
    before = -1.0
    for place, visit in enumerate(visits):
        if not isinstance(visit, Mapping) or not isinstance(visit.get("values"), Mapping):
            yield DataError(f"visits[{place}] = {_quoted(visit)}", "a visit has `day` and `values`", f"write {FORM}")
            continue
        yield from _unknown_keys(visit, ("day", "summary", "values"), f"visits[{place}]")
        faults = list(_day_faults(visit, place, before))
        yield from faults
        before = before if faults else float(visit["day"])
        for name, value in visit["values"].items():
            yield from _value_faults(name, value, place, names)
    if not any(value is not None for visit in visits if isinstance(visit, Mapping)
               for value in _mapping(visit.get("values")).values()):
        yield DataError("no visit holds a value", "at least one measurement", "add what was measured to `values`")


def _day_faults(visit: Mapping[str, Any], place: int, before: float) -> Iterator[DataError]:
    day, summary = visit.get("day"), visit.get("summary", False)
    if not isinstance(summary, bool) or (summary and place):
        yield DataError(f"visits[{place}].summary = {_quoted(summary)}", "true or false, and true only of the first "
                        "visit", "merge all earlier days into one summary, or leave it out")
    faults = list(_outside(day, f"visits[{place}].day", 0.0, LAST_DAY, "days"))
    yield from faults
    if faults or not isinstance(day, int | float):
        return
    if summary is not True and day != int(day):
        yield DataError(f"visits[{place}].day = {day:g}", "whole days since the first record", _MEND)
    if day <= before:
        yield DataError(f"visits[{place}].day = {day:g} after day {before:g}", "days ascend, one visit a day",
                        "sort the visits by day and merge those of one day")


def _value_faults(name: object, value: object, place: int, names: Catalogue) -> Iterator[DataError]:
    if name not in names.names:
        yield DataError(f"unknown feature {_quoted(name)} in visits[{place}]",
                        f"features of {names.name}: {', '.join(names.names)}", "spell it as the catalogue does")
    elif value is not None:
        known = names[str(name)]
        yield from _outside(value, f"visits[{place}].values[{name!r}]", known.low, known.high, known.unit)


def _outside(value: object, name: str, low: float, high: float, unit: str) -> Iterator[DataError]:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and isinstance(value, int | float) and low <= value <= high and math.isfinite(value)):
        yield DataError(f"{name} = {_quoted(value)}", f"a number from {low:g} to {high:g} {unit}".rstrip(),
                        "convert it to this unit, or leave it out where it was not measured")


def _unknown_keys(given: Mapping[Any, Any], known: tuple[str, ...], where: str) -> Iterator[DataError]:
    for key in given:
        if key not in known:
            yield DataError(f"{where} has {_quoted(key)}", f"only {', '.join(known)}", "leave it out")


def _mapping(value: object) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}


def _quoted(value: object) -> str:
    """A value in words, short, on one line."""
    text = repr(value)
    return text if len(text) <= _QUOTED else f"{text[:_QUOTED]} ..."
