import polars as pl
import pytest

from evaluation import appraisal, wording
from evaluation.report import grouped
from evaluation.subgroups import SCHEMA

POWER = pl.DataFrame([{"arm": "stage1", "reading": reading, "reference": "decomposition", "sd_of_difference": 0.02,
                       "smallest_difference": 0.056} for reading in ("stated", "tokens")], schema=appraisal.POWER)


def test_the_power_note_says_what_would_be_found_how_to_read_it_and_how_it_was_worked_out() -> None:
    told = wording.power_note(POWER, "stage1", 200, 90)
    assert "200 test stays, 90 of them with outcome 1" in told[0]
    assert "5.6 points (risk read as stated, against decomposition) or 5.6 points (risk read as tokens" in told[0]
    assert told[1].startswith("How to read:") and "bootstrap resamples of patients" in told[2]


@pytest.mark.parametrize("arm", [None, "vanilla"])
def test_an_arm_that_is_not_compared_has_no_power_note(arm: str | None) -> None:
    assert wording.power_note(POWER, arm, 200, 90) == []


def test_hidden_counts_are_said_to_be_hidden_and_one_class_has_a_dash() -> None:
    rows = [{"variable": "sex", "level": "female", "arm": "a", "reading": "model", "n": None, "positives": 7,
             "hidden": True},
            {"variable": "sex", "level": "male", "arm": "a", "reading": "model", "n": 20, "positives": 0,
             "hidden": False, "brier": 0.1, "mean_risk": 0.25, "observed": 0.0}]
    heads, lines = wording.subgroups(pl.DataFrame(rows, schema=SCHEMA), [("a", "model")])
    assert heads[3] == "AUROC [%]: a, model"
    assert lines == [["sex female", "hidden", "7", "hidden", "hidden", "hidden"],
                     ["sex male", "20", "0", "–", "0.0 %", "25.0 %"]]


def test_a_slope_without_interval_and_no_slope_at_all() -> None:
    row = {"arm": "a", "reading": "model", "recalibration": "platt", "validation_stays": 40, "mean_risk": 0.3,
           "observed": 0.4, "brier": 0.1, "ece_uniform": 0.05, "ece_quantile": 0.06, "intercept": -0.5,
           "intercept_low": -0.9, "intercept_high": -0.001, "slope": 4.0}
    plain = {**row, "recalibration": "none", "validation_stays": None, "slope": None}
    _, lines = wording.calibration(pl.DataFrame([row, plain], schema=appraisal.CALIBRATION))
    assert lines[0][2] == "platt, n = 40" and lines[0][-2:] == ["−0.50 [−0.90, 0.00]", "4.00"]
    assert lines[1][2] == "no" and lines[1][-1] == "–"


def test_only_recalibrated_arms_stand_in_their_table_with_figures_before_and_after() -> None:
    rows = [{"arm": arm, "reading": "tokens", "recalibration": method, "mean_risk": 0.3, "observed": 0.4,
             "validation_stays": None if method == "none" else 21, "brier": brier, "ece_uniform": 2 * brier,
             "ece_quantile": 0.06} for arm, method, brier in (
                 ("vanilla", "none", 0.3), ("stage1", "none", 0.2), ("stage1", "platt", 0.125),
                 ("stage1", "isotonic", 0.15))]
    heads, lines = wording.recalibration(pl.DataFrame(rows, schema=appraisal.CALIBRATION))
    assert lines == [["stage1", "tokens", "21", "0.200", "0.125", "0.150", "0.400", "0.250", "0.300"]]
    assert len(heads) == len(lines[0])


def test_a_cell_of_several_seeds_is_split_into_its_lines() -> None:
    assert grouped([["stage1", "97.3 [94.3, 99.4] (97.1 ± 1.5; seeds ± 0.4)"]]) == [
        ("stage1", [[("97.3", ["[94.3, 99.4]", "97.1 ± 1.5", "seeds ± 0.4"])]])]


def test_markdown_keeps_its_columns_whatever_a_cell_holds() -> None:
    assert wording.markdown((["a", "b"], [["x|y", "z"]])).splitlines() == ["| a | b |", "| --- | --- |",
                                                                          "| x\\|y | z |"]


@pytest.mark.parametrize(("value", "cell", "sentence"), [
    (0.0002, "< 0.001", "p < 0.001"), (0.00099, "< 0.001", "p < 0.001"), (0.001, "0.001", "p = 0.001"),
    (0.0424, "0.042", "p = 0.042"), (1.0, "1.000", "p = 1.000")])
def test_no_p_value_is_said_to_be_nothing(value: float, cell: str, sentence: str) -> None:
    assert (wording.p_value(value), wording.p_is(value)) == (cell, sentence)
    row = {"a_point": 0.1, "a_low": 0.05, "a_high": 0.2, "a_p": value, "a_p_holm": value}
    assert wording.tested(row, "a") == f"+10.0 [+5.0, +20.0], {sentence}, Holm {cell}"
    assert grouped([["arm", wording.tested(row, "a")]])[0][1][0][0] == (
        "+10.0", ["[+5.0, +20.0]", f"{sentence}, Holm {cell}"])
    frame = pl.DataFrame([{"arm": "a", "reading": "tokens", "measure": "auroc", "reference": "b", "difference": 0.1,
                           "low": 0.05, "high": 0.2, "p": value, "p_holm": value}], schema=appraisal.DIFFERENCES)
    assert wording.differences(frame)[1][0][3:5] == [cell, cell]
