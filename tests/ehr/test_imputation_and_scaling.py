"""LOCF looks neither ahead nor over the border of a stay; statistics see the training split only."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import ContractError
from contracts.frames import VISITS
from ehr import scale
from ehr.impute import carried_forward, measured
from ehr.scale import fit, moments

FEATURES = ("one", "two")
CELL = st.one_of(st.none(), st.floats(-1e6, 1e6, allow_nan=False))
STAYS = st.lists(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=8), min_size=1, max_size=6)
Values = list[list[tuple[float | None, float | None]]]


def visits_of(stays: Values) -> pl.DataFrame:
    rows = [(f"s{number}", visit, float(visit), False, *cells)
            for number, stay in enumerate(stays) for visit, cells in enumerate(stay)]
    return pl.DataFrame(rows, schema={**VISITS.dtypes, **dict.fromkeys(FEATURES, pl.Float64)}, orient="row")


def stays_of(stays: Values, splits: list[str]) -> pl.DataFrame:
    return pl.DataFrame({"stay_id": [f"s{number}" for number in range(len(stays))], "split": splits,
                         "age": [30.0 + 7 * number for number in range(len(stays))]})


def naive_locf(stays: Values) -> list[tuple[float | None, ...]]:
    filled = []
    for stay in stays:
        known: list[float | None] = [None, None]
        for cells in stay:
            known = [new if new is not None else old for new, old in zip(cells, known, strict=True)]
            filled.append(tuple(known))
    return filled


@settings(max_examples=150, deadline=None)
@given(STAYS)
def test_locf_equals_a_plain_loop_over_each_stay(stays: Values) -> None:
    assert carried_forward(visits_of(stays), FEATURES).select(FEATURES).rows() == naive_locf(stays)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(STAYS, st.data())
def test_what_comes_later_or_in_other_stays_changes_no_filled_value(stays: Values, data: st.DataObject) -> None:
    stay = data.draw(st.integers(0, len(stays) - 1))
    visit = data.draw(st.integers(0, len(stays[stay]) - 1))
    other = data.draw(STAYS)
    future = data.draw(st.lists(st.tuples(CELL, CELL), max_size=4))
    changed = [other[index % len(other)] for index in range(len(stays))]
    changed[stay] = stays[stay][:visit + 1] + future
    here = (pl.col("stay_id") == f"s{stay}") & (pl.col("visit") == visit)
    before, after = (carried_forward(visits_of(part), FEATURES).filter(here) for part in (stays, changed))
    assert before.equals(after)


@settings(max_examples=60, deadline=None)
@given(STAYS, st.integers(0, 1000))
def test_the_order_of_rows_does_not_matter_to_locf(stays: Values, seed: int) -> None:
    visits = visits_of(stays)
    shuffled = visits.sample(fraction=1.0, shuffle=True, seed=seed)
    assert carried_forward(visits, FEATURES).equals(carried_forward(shuffled, FEATURES))


@given(STAYS)
@settings(max_examples=40, deadline=None)
def test_the_mask_is_true_where_a_value_was_measured(stays: Values) -> None:
    expected = [(one is not None, two is not None) for stay in stays for one, two in stay]
    assert measured(visits_of(stays), FEATURES).select(FEATURES).rows() == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=5), min_size=3, max_size=8), st.data())
def test_statistics_do_not_change_when_other_splits_change(stays: Values, data: st.DataObject) -> None:
    splits = ["train", "validation", "test", *data.draw(st.lists(st.sampled_from(["train", "validation", "test"]),
                                                                  min_size=len(stays) - 3, max_size=len(stays) - 3))]
    changed = [stay if split == "train" else data.draw(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=5))
               for stay, split in zip(stays, splits, strict=True)]
    people = stays_of(stays, splits)
    older = people.with_columns(age=pl.when(pl.col("split") == "train").then("age").otherwise(99.0))
    first = fit(carried_forward(visits_of(stays), FEATURES), people, FEATURES, 5.0)
    second = fit(carried_forward(visits_of(changed), FEATURES), older, FEATURES, 5.0)
    assert first == second


def test_statistics_are_those_of_the_filled_training_values() -> None:
    stays: Values = [[(1.0, None), (None, None), (4.0, None)], [(10.0, 5.0)], [(1000.0, 7.0)]]
    people = stays_of(stays, ["train", "train", "test"])
    scaling = fit(carried_forward(visits_of(stays), FEATURES), people, FEATURES, 2.0)
    values = np.array([1.0, 1.0, 4.0, 10.0])
    mean, sd = float(values.mean()), float(values.std())
    assert astuple(scaling["one"]) == pytest.approx((mean, sd, mean - 2 * sd, mean + 2 * sd))
    assert list(scaling) == ["one", "two", "age"]
    assert (scaling["age"].mean, scaling["age"].sd) == (33.5, 3.5)


@pytest.mark.parametrize("values", [[], [3.0], [3.0, 3.0, 3.0], [0.1] * 1000])
def test_a_constant_or_unseen_feature_scales_to_zero(values: list[float]) -> None:
    entry = moments(np.array(values), 5.0)
    for value in (-1e9, 0.0, 3.0, 1e9):
        assert (min(max(value, entry.low), entry.high) - entry.mean) / entry.sd == 0.0


def test_scaling_survives_the_way_through_json() -> None:
    scaling = {"one": moments(np.array([1.0, 2.0]), 5.0), "age": moments(np.array([]), 5.0)}
    assert scale.from_values(scale.as_values(scaling)) == scaling


@pytest.mark.parametrize("entry", [{"mean": 1.0, "sd": 1.0, "low": 0.0},
                                   {"mean": float("nan"), "sd": 1.0, "low": 0.0, "high": 1.0}])
def test_a_broken_scaling_is_refused(entry: dict[str, float]) -> None:
    with pytest.raises(ContractError, match="scaling of 'one'"):
        scale.from_values({"one": entry})
