"""Splits: by patient, stratified, seeded, deaf to the order of rows."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import ContractError, DataError
from ehr.splits import check_split, stratified_split

PEOPLE = st.lists(st.booleans(), min_size=12, max_size=120)


def people(labels: list[bool]) -> pl.DataFrame:
    return pl.DataFrame({"patient_id": [f"p{number}" for number in range(len(labels))], "label": labels},
                        schema={"patient_id": pl.String, "label": pl.Int8})


@settings(max_examples=60, deadline=None)
@given(PEOPLE, st.floats(0.1, 0.6), st.floats(0.1, 0.5), st.integers(0, 100))
def test_each_patient_is_in_one_split_whatever_the_order_of_rows(labels: list[bool], test: float, validation: float,
                                                                 seed: int) -> None:
    patients = people(labels)
    split = stratified_split(patients, test, validation, seed)
    assert split["patient_id"].is_unique().all() and set(split["patient_id"]) == set(patients["patient_id"])
    shuffled = patients.sample(fraction=1.0, shuffle=True, seed=seed)
    assert stratified_split(shuffled, test, validation, seed).equals(split)


@settings(max_examples=60, deadline=None)
@given(PEOPLE, st.floats(0.1, 0.6), st.floats(0.1, 0.5))
def test_each_label_gives_the_same_share(labels: list[bool], test: float, validation: float) -> None:
    placed = stratified_split(people(labels), test, validation, 1).join(people(labels), on="patient_id")
    for label in (0, 1):
        stratum = placed.filter(pl.col("label") == label)
        drawn = stratum.filter(pl.col("split") == "test").height
        rest = stratum.height - drawn
        assert abs(drawn - test * stratum.height) <= 1
        assert abs(stratum.filter(pl.col("split") == "validation").height - validation * rest) <= 1


def test_another_seed_draws_another_split() -> None:
    patients = people([True, False] * 50)
    assert not stratified_split(patients, 0.3, 0.15, 1).equals(stratified_split(patients, 0.3, 0.15, 2))


def test_the_draw_is_the_same_on_every_machine() -> None:
    split = stratified_split(people([True, False] * 6), 0.3, 0.3, 42)
    assert split.filter(pl.col("split") == "test")["patient_id"].to_list() == ["p11", "p5", "p6", "p8"]


def stays(rows: list[tuple[str, str, str | None, int]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"stay_id": pl.String, "patient_id": pl.String, "split": pl.String,
                                      "label": pl.Int8}, orient="row")


WHOLE = [("a", "p1", "train", 0), ("b", "p2", "train", 1), ("c", "p3", "validation", 0), ("d", "p4", "validation", 1),
         ("e", "p5", "test", 0), ("f", "p6", "test", 1)]


def test_a_sound_split_passes_unchanged() -> None:
    assert check_split(stays(WHOLE)).equals(stays(WHOLE))


def test_a_patient_in_two_splits_is_refused() -> None:
    with pytest.raises(ContractError, match="1 patients are in more than one split"):
        check_split(stays([*WHOLE, ("g", "p1", "test", 0)]))


@pytest.mark.parametrize("split", [None, "holdout"])
def test_a_stay_in_no_split_is_refused(split: str | None) -> None:
    with pytest.raises(ContractError, match="1 stays are in none of the splits"):
        check_split(stays([*WHOLE, ("g", "p9", split, 0)]))


@pytest.mark.parametrize(("left_out", "found"), [("ef", "split test holds 0 stays"),
                                                 ("d", "split validation holds 1 stays, 0 of"),
                                                 ("a", "split train holds 1 stays, 1 of")])
def test_an_empty_split_or_one_of_a_single_label_is_refused(left_out: str, found: str) -> None:
    with pytest.raises(DataError, match=found):
        check_split(stays([row for row in WHOLE if row[0] not in left_out]))
