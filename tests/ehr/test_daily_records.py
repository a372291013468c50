"""Daily records of measurements: which ones a later call may take over, and what a sum of features is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from contracts.features import Catalogue, catalogue
from ehr.sources.aggregation import Rules
from ehr.sources.days import Days, daily_records
from ehr.sources.meds import codes
from ehr.sources.meds.mapping import read_mapping
from ehr.sources.mimic_iv import items as module
from ehr.sources.mimic_iv.items import items
from ehr.sources.parts import Scatter, sort_parts

NAMES = catalogue("mimic_iv").names
EYE, MOTOR, VERBAL, TOTAL = (f"Glasgow coma scale {part}" for part in (
    "eye opening", "motor response", "verbal response", "total"))


def records(folder: Path, measured: Sequence[tuple[int, str, float]], known: Rules) -> Days:
    """Of one patient with one stay, of one day: (second, feature, value)."""
    table = folder / "table"
    if not table.exists():
        table.mkdir(parents=True)
        with Scatter(table) as scatter:
            time, feature, value = zip(*measured, strict=True)
            scatter.add(np.ones(len(time)), np.array(time), np.array([NAMES.index(name) for name in feature]),
                        np.array(value))
        sort_parts(table)
    windows = pl.DataFrame({"stay": [100], "subject": [1], "begin": [0], "end": [86_399]})
    return daily_records([table], windows, folder / "cache", known)


def changed(name: str, **values: object) -> Catalogue:
    known = catalogue("mimic_iv")
    return replace(known, features=tuple(replace(item, **values) if item.name == name else item for item in known))


@pytest.mark.parametrize(("other", "value"), [
    (changed("Temperature", low=32.0), None), (changed("Temperature", high=30.5), 30.0),
    (changed("Temperature", kind="ordinal"), 31.0), (changed("pH", low=7.0), 30.5)])
def test_what_the_catalogue_says_of_values_decides_which_records_are_taken_over(
        tmp_path: Path, other: Catalogue, value: float | None) -> None:
    measured = [(100, "Temperature", 30.0), (200, "Temperature", 31.0)]
    first = records(tmp_path, measured, items())
    again = records(tmp_path, measured, items())
    assert (first.days["Temperature"].to_list(), first.computed) == ([30.5], 1)
    assert (again.reused, again.days.equals(first.days)) == (1, True)
    after = records(tmp_path, measured, replace(items(), catalogue=other))
    assert (after.days["Temperature"].to_list(), after.computed) == ([value], 1)


def test_a_catalogue_in_other_words_leaves_the_records_as_they_are(tmp_path: Path) -> None:
    measured = [(100, "Temperature", 37.0)]
    records(tmp_path, measured, items())
    other = changed("Temperature", aliases=("fever",), normal=(36.0, 37.5))
    assert records(tmp_path, measured, replace(items(), catalogue=other)).reused == 1


def test_measurements_of_a_catalogue_in_another_order_or_unit_have_another_name(
        monkeypatch: pytest.MonkeyPatch) -> None:
    known, mapping = catalogue("mimic_iv"), read_mapping("mimic_iv")
    before = codes.known_features(mapping, "a").digest
    assert module.items.__wrapped__().digest == items().digest
    turned = replace(known, features=known.features[::-1])
    for other in (turned, changed("Glucose", unit="mmol/L")):
        monkeypatch.setattr(codes, "catalogue", lambda _, given=other: given)
        assert codes.known_features(mapping, "a").digest != before
    monkeypatch.setattr(module, "catalogue", lambda _: turned)
    assert module.items.__wrapped__().digest != items().digest


@pytest.mark.parametrize(("eye", "total"), [
    ([0.0], None), ([7.0], None), ([4.0], 15.0), ([0.0, 4.0], 15.0), ([3.0, 9.0], 14.0)])
def test_a_sum_takes_no_part_that_is_impossible(tmp_path: Path, eye: list[float], total: float | None) -> None:
    measured = [*((100, EYE, value) for value in eye), (100, MOTOR, 6.0), (100, VERBAL, 5.0)]
    found = records(tmp_path, measured, items())
    assert found.days[TOTAL].to_list() == [total]
    summed = next(step for step in found.steps if "sum of its parts" in step.rule)
    assert summed.found == (0 if total is None else 1)
