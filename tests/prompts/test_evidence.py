"""Evidence: what a prompt shows of a stay, and what it never shows."""

from __future__ import annotations

import re
from datetime import datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from configs.schema import Prompts
from contracts.errors import ConfigError, ContractError
from contracts.features import STATIC, Catalogue, Feature
from contracts.frames import READINGS, STAYS
from contracts.patients import patients_of
from prompts.evidence import Case, cases, chosen_features, most_measured, number, patients, render

FEATURES = Catalogue("small", (Feature("Heart Rate", "bpm", 0, 300), Feature("pH", "", 6, 8), Feature("cells(%)", "%",
0, 100),
                               Feature("Glucose", "mg/dL", 0, 2000)), ())
CASE = Case(stay_id="stay-4711", split="train", label=1, age=67.0, sex="male", days=(1.5, 4.0, 5.0, 6.0),
            summaries=(True, False, False, False),
            values={"Heart Rate": (88.0, 93.456, 110.0, 124.0), "pH": (None, 7.31, 7.31, 7.204),
                    "cells(%)": (None, None, None, None), "Glucose": (None, None, 12345.678, 50000.0)})


def stays_frame(splits=("train", "train", "test")):
    return pl.DataFrame([{"stay_id": f"stay-{index}", "patient_id": f"patient-{index}", "age": 40.0 + index,
                          "sex": "female", "admitted_at": datetime(2020, 1, 31), "discharged_at": datetime(2020, 2, 9),
                          "label": index % 2, "split": split} for index, split in enumerate(splits)],
                          schema=dict(STAYS.dtypes))


def visits_frame(rows):
    names = ("stay_id", "visit", "day", "is_summary", *FEATURES.names)
    dtypes = (pl.String, pl.Int32, pl.Float64, pl.Boolean, *[pl.Float64] * 4)
    return pl.DataFrame(rows, schema=dict(zip(names, dtypes, strict=True)), orient="row")


MEASURED = visits_frame([("stay-0", 0, 0.0, False, 80.0, None, 1.0, None), ("stay-0", 1, 2.0, False, None, 7.4, 2.0,
None),
                         ("stay-1", 0, 0.0, False, 90.0, None, None, 5.0), ("stay-2", 0, 0.0, False, 70.0, 7.1, None,
                         6.0),
                         ("stay-2", 1, 1.0, False, 70.0, 7.1, None, 6.0)])
FILLED = MEASURED.with_columns(pl.col(FEATURES.names).forward_fill().over("stay_id"))


def readings_frame(stays=("stay-0", "stay-1", "stay-2")):
    order = ("Glucose", STATIC, "cells(%)", "pH", "Heart Rate")
    return pl.DataFrame([{"stay_id": stay, "risk": 0.5, "feature": name, "attention": 0.3 - 0.05 * rank, "rank": rank}
                         for stay in stays for rank, name in enumerate(order, 1)], schema=dict(READINGS.dtypes))


def test_a_stay_is_written_as_its_static_data_and_a_line_for_each_feature():
    evidence = render(CASE, FEATURES, Prompts(), FEATURES.names)
    assert evidence.text.splitlines() == [
        "Age & Sex: 67 years, male",
        "Values by day, oldest first. Days since the first record: earlier (summary), 4, 5, 6",
        "Heart Rate (bpm): 88, 93.46, 110, 124",
        "pH: unknown, 7.31, 7.31, 7.204",
        "cells(%): unknown",
        "Glucose (mg/dL): unknown, unknown, 12350, 50000"]
    assert evidence.shown == (STATIC, *FEATURES.names)


def test_only_the_newest_visits_are_written_with_their_days():
    text = render(CASE, FEATURES, Prompts(visits=2, digits=2), ["pH", "Glucose"]).text
    assert text.splitlines()[1:] == ["Values by day, oldest first. Days since the first record: 5, 6", "pH: 7.3, 7.2",
                                     "Glucose (mg/dL): 12000, 50000"]


def test_features_never_measured_are_left_out_if_so_configured_and_are_not_shown():
    evidence = render(CASE, FEATURES, Prompts(observed_only=True), FEATURES.names)
    assert evidence.shown == (STATIC, "Heart Rate", "pH", "Glucose")
    assert "cells" not in evidence.text


def test_only_the_features_asked_for_are_shown_in_their_order():
    assert render(CASE, FEATURES, Prompts(), ["pH", "Heart Rate"]).shown == (STATIC, "pH", "Heart Rate")


@pytest.mark.parametrize(("value", "digits", "text"), [
    (50000.0, 3, "50000"), (12345.0, 3, "12300"), (0.0213, 2, "0.021"), (7.0, 4, "7"), (-0.0, 3, "0"), (0.000012345, 3,
    "0.0000123"),
    (99.96, 3, "100"), (1e6, 2, "1000000"), (-3.14159, 3, "-3.14")])
def test_numbers_have_significant_digits_and_no_exponent(value, digits, text):
    assert number(value, digits) == text


@given(st.floats(-1e9, 1e9), st.integers(1, 10))
def test_a_written_number_is_plain_and_close_to_its_value(value, digits):
    text = number(value, digits)
    assert re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", text)
    assert float(text) == pytest.approx(value, rel=0.51 * 10 ** (1 - digits), abs=1e-300)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_refused(value):
    with pytest.raises(ContractError, match="finite"):
        number(value, 3)


@pytest.mark.parametrize("name", ["a<b", "a>b", "a\nb", "a\u2028b", "a, b", "a;b", "<Final answer>"])
def test_a_name_that_would_break_the_grammar_is_refused(name):
    for hostile in (Feature(name, "", 0, 1), Feature("fine", name, 0, 1)):
        case = Case("s", "train", 0, 50.0, "male", (0.0,), (False,), {hostile.name: (0.5,)})
        with pytest.raises(ConfigError, match="in a prompt"):
            render(case, Catalogue("odd", (hostile,), ()), Prompts(), [hostile.name])


def test_sex_from_a_file_cannot_break_the_grammar():
    with pytest.raises(ConfigError, match="in a prompt"):
        render(Case("s", "train", 0, 50.0, "m>\n", (0.0,), (False,), {}), FEATURES, Prompts(), [])


def test_an_unknown_feature_is_refused_with_those_that_there_are():
    with pytest.raises(ConfigError, match="Heart Rate, pH"):
        render(CASE, FEATURES, Prompts(), ["Heart rate"])


def test_stays_are_joined_with_their_visits_in_the_order_of_stays():
    stays = stays_frame().reverse()
    joined = cases(stays, FILLED.sample(fraction=1.0, shuffle=True, seed=3), FEATURES)
    assert [case.stay_id for case in joined] == ["stay-2", "stay-1", "stay-0"]
    assert (joined[2].values["pH"], joined[2].days, joined[2].label) == ((None, 7.4), (0.0, 2.0), 0)
    assert joined[2].values["Heart Rate"] == (80.0, 80.0)


def test_a_stay_without_visits_or_visits_without_a_stay_are_refused_without_naming_them():
    with pytest.raises(ContractError, match="visits: 1 stays without any") as without:
        cases(stays_frame(), FILLED.filter(pl.col("stay_id") != "stay-1"), FEATURES)
    with pytest.raises(ContractError, match="1 of unknown stays"):
        cases(stays_frame().head(2), FILLED, FEATURES)
    assert "stay-1" not in str(without.value)


def test_the_most_measured_features_are_counted_in_the_training_split_before_filling():
    # Training: Heart Rate 2, pH 1, cells 2, Glucose 1; the test stay's pH and Glucose do not count.
    assert most_measured(MEASURED, stays_frame(), 2) == ("Heart Rate", "cells(%)")
    assert most_measured(MEASURED, stays_frame(), 3) == ("Heart Rate", "pH", "cells(%)")
    assert most_measured(MEASURED, stays_frame(), 99) == FEATURES.names


def test_named_features_are_shown_in_the_order_of_the_catalogue():
    section = Prompts(features=("Glucose", "Heart Rate"))
    assert chosen_features(stays_frame(), MEASURED, FEATURES, section) == ("Heart Rate", "Glucose")


def test_a_named_feature_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match="Glucos"):
        chosen_features(stays_frame(), MEASURED, FEATURES, Prompts(features=("Glucos",)))


@pytest.mark.parametrize("features", [(), ("pH", "pH"), 0])
def test_features_are_named_once_and_not_none(features):
    with pytest.raises(ValidationError, match="at least one"):
        Prompts(features=features)


def test_units_can_be_left_out():
    text = render(CASE, FEATURES, Prompts(units=False, visits=1), FEATURES.names).text
    assert "Heart Rate: 124" in text and "bpm" not in text and "mg/dL" not in text


def test_features_cannot_be_counted_without_training_visits():
    with pytest.raises(ContractError, match="training split"):
        most_measured(MEASURED, stays_frame(("test", "test", "test")), 2)


def test_patients_hold_evidence_and_the_experts_features_among_those_shown():
    section = Prompts(features=2, expert_features=2, observed_only=True)
    rows = patients_of(patients(stays_frame(), MEASURED, FILLED, [readings_frame()], FEATURES, section))
    assert [row.stay_id for row in rows] == ["stay-0", "stay-1", "stay-2"]
    assert [row.shown for row in rows] == [(STATIC, "Heart Rate", "cells(%)"), (STATIC, "Heart Rate"), (STATIC,
    "Heart Rate")]
    assert [row.expert_features for row in rows] == [(STATIC, "cells(%)"), (STATIC, "Heart Rate"), (STATIC,
    "Heart Rate")]
    assert [(row.split, row.label) for row in rows] == [("train", 0), ("train", 1), ("test", 0)]


def test_no_identifier_and_no_date_is_in_the_evidence():
    rows = patients_of(patients(stays_frame(), MEASURED, FILLED, [readings_frame()], FEATURES, Prompts()))
    for row in rows:
        assert not re.search(r"stay|patient|2020|-01-|label|train|test", row.evidence)


def test_a_stay_without_readings_is_refused():
    with pytest.raises(ContractError, match="readings: 1 stays without any"):
        patients(stays_frame(), MEASURED, FILLED, [readings_frame(("stay-0", "stay-2"))], FEATURES, Prompts())


def test_frames_that_break_their_contract_are_refused():
    with pytest.raises(ContractError, match="other feature columns"):
        patients(stays_frame(), MEASURED.drop("pH"), FILLED, [readings_frame()], FEATURES, Prompts())
    with pytest.raises(ContractError, match="stays has no column"):
        cases(stays_frame().drop("age"), FILLED, FEATURES)
