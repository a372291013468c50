"""Arms trained on labels only: what they are taught."""

from __future__ import annotations

import polars as pl
import pytest

from contracts.patients import Patient
from prompts.grammar import parse, render_answer
from tasks.labels import balanced


def patient(number: int, label: int) -> Patient:
    return Patient(f"s{number}", "train", label, "Age & Sex: 60 years, male", ("Age & Sex",), ("Age & Sex",))


def test_both_labels_are_equally_many_and_nobody_is_left_out() -> None:
    patients = [patient(number, int(number < 3)) for number in range(11)]
    answers = balanced(patients, "vanilla")
    told = answers.with_columns(pl.col("probability").gt(0.5).alias("positive"))
    assert told["positive"].sum() == 8 and answers.height == 16
    assert set(answers["stay_id"]) == {one.stay_id for one in patients}
    counts = told.filter("positive").group_by("stay_id").len()["len"].sort().to_list()
    assert counts == [2, 3, 3]


def test_an_answer_says_the_label_in_its_first_decimal() -> None:
    answers = balanced([patient(0, 0), patient(1, 1)], "vanilla")
    for stay, text in answers.select("stay_id", "text").iter_rows():
        found = parse(text, "vanilla")
        assert found.well_formed and found.probability == {"s0": 0.05, "s1": 0.95}[stay]
        assert text[found.probability_span[0] + 2] == {"s0": "0", "s1": "9"}[stay]  # type: ignore[index]


@pytest.mark.parametrize(("style", "probability"), [("think", 0.5), ("vanilla", 1.5)])
def test_an_answer_of_another_style_or_range_is_refused(style: str, probability: float) -> None:
    with pytest.raises(ValueError, match="style|not in"):
        render_answer(style, probability)
