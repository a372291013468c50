import numpy as np
import polars as pl
import pytest

from configs.schema import Evaluation
from ehr.small_cells import hidden
from evaluation import appraisal, calibration, decision, recalibration, risks, tables
from evaluation.appraisal import Appraisal, appraise
from evaluation.baselines import judge_expert
from evaluation.verdicts import SCHEMA as VERDICT_ROWS
from support.judged import POLICY_ARMS, readings_of, stays_of, verdicts_of

SECTION = Evaluation(interval_bootstraps=60)


def _appraised(stays: pl.DataFrame, validation: appraisal.Validation | None = None, arms: tuple[str, ...] = (
        "decomposition", "stage1")) -> tuple[pl.DataFrame, pl.DataFrame, Appraisal]:
    verdicts = pl.concat([*(verdicts_of(arm, stays, POLICY_ARMS[arm], seed) for seed, arm in enumerate(arms)),
                          judge_expert(readings_of(stays), stays)])
    table = tables.results(verdicts, 20, 1, interval_bootstraps=60)
    return verdicts, table, appraise(verdicts, table, stays, SECTION, 1, 5, hidden, validation)


@pytest.fixture(scope="module")
def made() -> tuple[pl.DataFrame, pl.DataFrame, Appraisal]:
    labels = np.array([0, 1] * 20)
    return _appraised(stays_of(300), {("expert", "model"): (labels, 0.4 + 0.3 * labels)})


def test_every_frame_keeps_its_columns_and_names_no_stay(made: tuple[pl.DataFrame, pl.DataFrame, Appraisal]) -> None:
    verdicts, _, found = made
    wanted = {"differences": appraisal.DIFFERENCES, "calibration": appraisal.CALIBRATION,
              "reliability": appraisal.RELIABILITY, "decision": appraisal.DECISION, "power": appraisal.POWER}
    for name, frame in found.frames().items():
        assert frame.height and frame.schema == pl.Schema(wanted.get(name, frame.schema)), name
        assert not any(stay in frame.write_csv() for stay in verdicts["stay_id"].unique())
    assert set(found.frames()) == {*wanted, "subgroups"}


def test_the_differences_are_those_of_the_table(made: tuple[pl.DataFrame, pl.DataFrame, Appraisal]) -> None:
    _, table, found = made
    assert found.differences.height == 2 * 3
    for row in found.differences.iter_rows(named=True):
        line = table.filter((pl.col("arm") == row["arm"]) & (pl.col("reading") == row["reading"])).row(0, named=True)
        assert (row["difference"], row["p_holm"]) == (line[f"{row['measure']}_gap_point"],
                                                      line[f"{row['measure']}_gap_p_holm"])


def test_the_spread_behind_the_power_is_that_behind_the_interval(
        made: tuple[pl.DataFrame, pl.DataFrame, Appraisal]) -> None:
    found = made[2]
    for row in found.power.iter_rows(named=True):
        gap = found.differences.filter((pl.col("arm") == row["arm"]) & (pl.col("reading") == row["reading"])
                                       & (pl.col("measure") == "auroc")).row(0, named=True)
        # of 60 resamples; a normal interval is 3.92 sd wide
        assert gap["high"] - gap["low"] == pytest.approx(3.92 * row["sd_of_difference"], rel=0.3)
        assert row["smallest_difference"] == pytest.approx(2.8016 * row["sd_of_difference"], rel=1e-3)


def test_recalibration_is_learnt_on_validation_alone(made: tuple[pl.DataFrame, pl.DataFrame, Appraisal]) -> None:
    verdicts, _, found = made
    judged = risks.judged(verdicts)
    labels = np.array([0, 1] * 20)
    mapped = recalibration.platt(labels, 0.4 + 0.3 * labels)(judged.risks["expert", "model"])
    rows = {row["recalibration"]: row for row in
            found.calibration.filter(pl.col("arm") == "expert").iter_rows(named=True)}
    assert set(rows) == {"none", "platt", "isotonic"} and rows["platt"]["validation_stays"] == 40
    assert rows["platt"]["ece_uniform"] == pytest.approx(calibration.ece(judged.labels, mapped))
    assert found.calibration.filter(pl.col("arm") == "stage1")["recalibration"].to_list() == ["none", "none"]


def test_validation_of_one_class_recalibrates_nothing() -> None:
    found = _appraised(stays_of(120), {("expert", "model"): (np.zeros(5, int), np.full(5, 0.3))})[2]
    assert (found.calibration["recalibration"] == "none").all()


def test_the_decision_curves_hold_their_two_references(made: tuple[pl.DataFrame, pl.DataFrame, Appraisal]) -> None:
    verdicts, _, found = made
    judged = risks.judged(verdicts)
    curves = {arm: found.decision.filter(pl.col("arm") == arm) for arm in ("treat all", "treat none")}
    assert curves["treat all"]["net_benefit"].to_list() == pytest.approx(decision.treat_all(judged.labels).tolist())
    assert (curves["treat none"]["net_benefit"] == 0).all()
    part = found.decision.filter((pl.col("arm") == "stage1") & (pl.col("reading") == "tokens"))
    assert (part["low"] <= part["net_benefit"] + 1e-12).mean() > 0.95  # type: ignore[operator]


def test_no_bin_of_few_stays_is_handed_out_nor_to_be_worked_out(
        made: tuple[pl.DataFrame, pl.DataFrame, Appraisal]) -> None:
    found = made[2]
    assert found.reliability["n"].min() >= 5  # type: ignore[operator]
    whole = risks.judged(made[0])
    for (arm, reading), values in whole.risks.items():
        curve = calibration.reliability(whole.labels, values)
        shown = found.reliability.filter((pl.col("arm") == arm) & (pl.col("reading") == reading)
                                         & (pl.col("bins") == "uniform"))
        assert curve.height - shown.height != 1
        assert set(shown["bin"]) <= set(curve["bin"])


def test_a_handful_of_stays_is_appraised_too() -> None:
    _, _, found = _appraised(stays_of(24))
    assert found.subgroups["hidden"].any()
    assert found.subgroups.filter(pl.col("hidden"))["auroc"].null_count() == found.subgroups["hidden"].sum()


def test_without_the_reference_there_are_no_differences_and_no_power() -> None:
    found = _appraised(stays_of(120), arms=("stage1",))[2]
    assert not found.differences.height and not found.power.height
    assert found.differences.schema == pl.Schema(appraisal.DIFFERENCES)


def _bins(labels: np.ndarray, values: np.ndarray, patients: list[str]) -> pl.DataFrame:
    """The uniform reliability bins that are handed out."""
    stays = pl.DataFrame({"stay_id": [f"s{number:03d}" for number in range(labels.size)], "patient_id": patients,
                          "age": [60.0] * labels.size, "sex": ["male"] * labels.size})
    verdicts = pl.DataFrame([{"arm": "expert", "stay_id": stay, "label": int(label), "text": "", "parsed": True,
                              "probability": float(value), "token_probability": float(value), "features": [],
                              "prompt_tokens": 0, "completion_tokens": 0, "well_formed": True, "truncated": False,
                              "reading": "model"} for stay, label, value in zip(stays["stay_id"], labels, values,
                                                                                strict=True)], schema=VERDICT_ROWS)
    table = tables.results(verdicts, 5, 1, interval_bootstraps=20)
    found = appraise(verdicts, table, stays, SECTION, 1, 5, hidden)
    return found.reliability.filter(pl.col("bins") == "uniform")


def test_a_bin_that_tells_of_few_patients_with_one_outcome_is_left_out() -> None:
    labels, values = np.r_[np.zeros(60, int), np.ones(60, int)], np.repeat([0.15, 0.45, 0.85], 40)
    each = [f"p{number}" for number in range(120)]
    assert _bins(labels, values, each)["n"].to_list() == [40, 40, 40]
    labels[0] = 1  # one death in a bin of forty stays
    assert _bins(labels, values, each)["bin"].to_list() == [8]
    labels[0] = 0
    assert _bins(labels, values, ["q"] * 40 + each[40:])["n"].to_list() == [40]  # and forty stays of one patient
