"""Evidence: one stay as text that a language model reads. In: stays and filled visits; out: `Evidence`, `patients`.

The text holds no identifier and no date: time is told in days since the stay's first record. It looks like this:

    Age & Sex: 67 years, male
    Values by day, oldest first. Days since the first record: earlier (summary), 4, 5, 6
    Heart Rate (bpm): 88, 93, 110, 124
    pH: unknown, 7.31, 7.31, 7.2

A value that was not measured on a day is the last one before it (the frame comes filled); what was not yet measured is
"unknown", and "unknown" alone stands for a feature that was not measured by the last day shown.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby
from operator import itemgetter
from typing import Any

import polars as pl

from configs.schema import Prompts
from contracts.errors import ConfigError, ContractError
from contracts.features import STATIC, Catalogue
from contracts.frames import READINGS, STAYS, check_first, check_visits, feature_columns
from contracts.patients import PATIENTS
from contracts.redaction import one_line
from prompts.guidance import expert_features

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Case:
    """One stay with its T visits, oldest first; still with its identifier, which `render` does not read.

    Attributes:
        age: [years], None = unknown. sex: in words, "unknown" where it is.
        days: T elapsed days since the first record.
        summaries: T flags; True for the record that summarises all earlier days.
        values: feature to its T values in catalogue units; None = never measured so far.
    """

    stay_id: str
    split: str
    label: int
    age: float | None
    sex: str
    days: tuple[float, ...]
    summaries: tuple[bool, ...]
    values: Mapping[str, tuple[float | None, ...]]


@dataclass(frozen=True)
class Evidence:
    """The text of one stay and the canonical names of the tokens it shows ("Age & Sex" first)."""

    text: str
    shown: tuple[str, ...]


def cases(stays: pl.DataFrame, filled: pl.DataFrame, catalogue: Catalogue) -> list[Case]:
    """Joins stays with their visits, in the order of `stays`.

    Args:
        stays: contract STAYS.
        filled: contract VISITS with the catalogue's feature columns, after LOCF.

    Raises:
        ContractError: a frame breaks its contract, a stay has no visit, or a visit belongs to no stay.
    """
    STAYS.check(stays)
    check_visits(filled, catalogue.names)
    ordered = filled.sort("stay_id", "visit").select("stay_id", "day", "is_summary", *catalogue.names)
    visits_of = {stay: list(rows) for stay, rows in groupby(ordered.iter_rows(), key=itemgetter(0))}
    _same_stays("visits", visits_of, stays)
    return [_case(row, visits_of[row["stay_id"]], catalogue.names) for row in stays.iter_rows(named=True)]


def render(case: Case, catalogue: Catalogue, section: Prompts, features: Sequence[str],
           words: Mapping[str, str] | None = None) -> Evidence:
    """Writes the newest `section.visits` visits of a case, one line for each of `features`.

    Args:
        features: canonical names, in the order of their lines (see `chosen_features`).
        words: what stands in the text in place of a canonical name, for features that have another name here.

    Raises:
        ConfigError: a feature is not of the catalogue, or a name would break the prompt's grammar.
        ContractError: a value is not finite.
    """
    newest = slice(-section.visits, None)
    lines = [f"{STATIC}: {_static(case, section.digits)}", _header(case, newest)]
    shown = [STATIC]
    for name in features:
        feature = catalogue[name]
        values = case.values[name][newest]
        if section.observed_only and all(value is None for value in values):
            continue
        called = (words or {}).get(name, name)
        told = section.units and feature.unit and f"({feature.unit})" not in called
        unit = f" ({_plain(feature.unit)})" if told else ""
        lines.append(f"{_plain(called)}{unit}: {_listed(values, section.digits)}")
        shown.append(name)
    return Evidence("\n".join(lines), tuple(shown))


def _static(case: Case, digits: int) -> str:
    """Age and sex; one word where neither is known."""
    if case.age is None and case.sex == UNKNOWN:
        return UNKNOWN
    age = f"age {UNKNOWN}" if case.age is None else f"{number(case.age, digits)} years"
    return f"{age}, {f'sex {UNKNOWN}' if case.sex == UNKNOWN else _plain(case.sex)}"


def chosen_features(stays: pl.DataFrame, visits: pl.DataFrame, catalogue: Catalogue, section: Prompts
                    ) -> tuple[str, ...]:
    """The features that prompts show, in catalogue order: all, the most often measured ones, or those named.

    Raises:
        ConfigError: a name is not of the catalogue.
    """
    if section.features == "all":
        return catalogue.names
    if isinstance(section.features, int):
        return most_measured(visits, stays, section.features)
    for name in section.features:
        catalogue[name]
    return tuple(name for name in catalogue.names if name in section.features)


def most_measured(visits: pl.DataFrame, stays: pl.DataFrame, count: int) -> tuple[str, ...]:
    """The `count` features with most measured daily values in the training split, in catalogue order.

    Of features that are measured equally often the earlier one in the catalogue is taken; of fewer features, all.

    Args:
        visits: contract VISITS, not filled: null = not measured.
        stays: contract STAYS.

    Raises:
        ContractError: the training split has no visits.
    """
    training = visits.join(stays.filter(pl.col("split") == "train"), on="stay_id", how="semi")
    if training.is_empty():
        raise ContractError("the training split has no visits", "features are counted in the training split",
                            "look at the splits of the cohort")
    names = feature_columns(visits)
    measured = training.select(pl.col(names).count()).row(0)
    ranked = sorted(range(len(names)), key=lambda column: (-measured[column], column))
    return tuple(names[column] for column in sorted(ranked[:count]))


def patients(stays: pl.DataFrame, visits: pl.DataFrame, filled: pl.DataFrame, readings: Sequence[pl.DataFrame],
             catalogue: Catalogue, section: Prompts) -> pl.DataFrame:
    """The `patients` frame: evidence, what it shows, and the expert's features among that (C_exp), one row a stay.

    Args:
        stays: contract STAYS. visits: VISITS as measured. filled: VISITS after LOCF.
        readings: contract READINGS, of one expert or several.

    Raises:
        ContractError: a frame breaks its contract, or a stay has no visit or no reading.
    """
    check_visits(visits, catalogue.names)
    features = chosen_features(stays, visits, catalogue, section)
    return patients_showing(features, stays, filled, readings, catalogue, section)


def patients_showing(features: Sequence[str], stays: pl.DataFrame, filled: pl.DataFrame,
                     readings: Sequence[pl.DataFrame], catalogue: Catalogue, section: Prompts,
                     words: Mapping[str, Mapping[str, str]] | None = None) -> pl.DataFrame:
    """The `patients` frame of stays whose prompts show given features; `shown` and C_exp keep canonical names.

    Args:
        features: canonical names, in the order of their lines.
        stays: contract STAYS. filled: VISITS after LOCF. readings: contract READINGS, of one expert or several.
        words: stay_id to feature to what stands in its text in place of the canonical name.

    Raises:
        ContractError: a frame breaks its contract, or a stay has no visit or no reading.
    """
    for one in readings:
        READINGS.check(one)
    known = cases(stays, filled, catalogue)
    evidence = {case.stay_id: render(case, catalogue, section, features, (words or {}).get(case.stay_id))
                for case in known}
    expert = expert_features(readings, section.expert_features, {stay: text.shown for stay, text in evidence.items()},
                             section.guide_rule)
    _same_stays("readings", expert, stays)
    return PATIENTS.check(pl.DataFrame({
        "stay_id": [case.stay_id for case in known], "split": [case.split for case in known],
        "label": [case.label for case in known], "evidence": [evidence[case.stay_id].text for case in known],
        "shown": [list(evidence[case.stay_id].shown) for case in known],
        "expert_features": [expert[case.stay_id] for case in known]}, schema=dict(PATIENTS.dtypes)))


def first_visits(known: pl.DataFrame, stays: pl.DataFrame, first: pl.DataFrame, features: Sequence[str],
                 catalogue: Catalogue, section: Prompts) -> pl.DataFrame:
    """The `patients` frame of stays of which the evidence shows the first day alone.

    The text depends on nothing that comes later, not even on whether anything does.

    Args:
        known: `patients` of at least these stays: C_exp is theirs, as far as it is shown.
        stays: contract STAYS. first: VISITS, the first day of each. features: canonical names, in the order of their
            lines.

    Raises:
        ContractError: a frame breaks its contract, a visit is no first day, or a stay has none or is not known.
    """
    expert = dict(PATIENTS.check(known).select("stay_id", "expert_features").iter_rows())
    begun = cases(stays, check_first(first, catalogue.names), catalogue)
    _same_stays("patients", set(expert) & set(stays["stay_id"]), stays)
    texts = [render(case, catalogue, section, features) for case in begun]
    return PATIENTS.check(pl.DataFrame({
        "stay_id": [case.stay_id for case in begun], "split": [case.split for case in begun],
        "label": [case.label for case in begun], "evidence": [text.text for text in texts],
        "shown": [list(text.shown) for text in texts],
        "expert_features": [[name for name in expert[case.stay_id] if name in text.shown]
                            for case, text in zip(begun, texts, strict=True)]}, schema=dict(PATIENTS.dtypes)))


def number(value: float, digits: int) -> str:
    """A number with at most `digits` significant digits, never with an exponent: 50000, 0.0213.

    Raises:
        ContractError: the value is not finite.
    """
    if not math.isfinite(value):
        raise ContractError(f"value {value}", "values are finite, or null where nothing was measured",
                            "recompute the cohort")
    return format(Decimal(f"{value:.{digits}g}") + 0, "f")


def _case(stay: Mapping[str, Any], visits: Sequence[tuple[Any, ...]], names: Sequence[str]) -> Case:
    """One case from its row of stays and its visits, each (stay_id, day, is_summary, one value for each name)."""
    _, days, summaries, *columns = zip(*visits, strict=True)
    return Case(stay_id=stay["stay_id"], split=stay["split"], label=stay["label"], age=stay["age"], sex=stay["sex"],
                days=days, summaries=summaries, values=dict(zip(names, columns, strict=True)))


def _same_stays(what: str, found: Iterable[str], stays: pl.DataFrame) -> None:
    """Raises ContractError unless `found` are exactly the stays; only counts are named, never an identifier."""
    expected, got = set(stays["stay_id"]), set(found)
    if expected != got:
        raise ContractError(f"{what}: {len(expected - got)} stays without any, {len(got - expected)} of unknown stays",
                            f"each stay has {what} and each of {what} a stay", "recompute the stage that wrote them")


def _header(case: Case, newest: slice) -> str:
    days = ["earlier (summary)" if summary else number(day, 4)
            for day, summary in zip(case.days[newest], case.summaries[newest], strict=True)]
    return f"Values by day, oldest first. Days since the first record: {', '.join(days)}"


def _listed(values: Sequence[float | None], digits: int) -> str:
    if all(value is None for value in values):
        return UNKNOWN
    return ", ".join(UNKNOWN if value is None else number(value, digits) for value in values)


def _plain(words: str) -> str:
    """The words, if they cannot be taken for a tag, a new line or two names of a list.

    Raises:
        ConfigError: they hold one of < > , ; or a line break, or signs that act instead of standing there.
    """
    if any(mark in words for mark in "<>,;") or one_line(words) != words:
        raise ConfigError(f"{words!r} in a prompt", "names, units and sex hold none of < > , ; no line break and no "
                          "control sign",
                          "correct the catalogue or the source")
    return words
