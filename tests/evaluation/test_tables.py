import re

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score
from statsmodels.stats.multitest import multipletests

from contracts.errors import DataError
from evaluation import paper_figures, risks, statistics, tables
from evaluation.baselines import judge_expert
from support.judged import POLICY_ARMS, readings_of, stays_of, verdicts_of


@pytest.fixture(scope="module")
def verdicts() -> pl.DataFrame:
    stays = stays_of(180)
    policy = [verdicts_of(arm, stays, skill, seed) for seed, (arm, skill) in enumerate(POLICY_ARMS.items())]
    return pl.concat([*policy, judge_expert(readings_of(stays), stays)])


def test_both_readings_of_each_policy_arm_and_one_of_the_expert_are_in_the_table(verdicts: pl.DataFrame) -> None:
    table = tables.results(verdicts, bootstraps=50, seed=1)
    expected = [(arm, reading) for arm in POLICY_ARMS for reading in ("stated", "tokens")] + [("expert", "model")]
    assert table.select("arm", "reading").rows() == expected


def test_point_values_are_those_of_scikit_learn_with_unparsed_answers_at_one_half(verdicts: pl.DataFrame) -> None:
    table = tables.results(verdicts, bootstraps=50, seed=1)
    for arm, reading, column in (("think", "stated", "probability"), ("think", "tokens", "token_probability")):
        part = verdicts.filter(pl.col("arm") == arm)
        row = table.filter((pl.col("arm") == arm) & (pl.col("reading") == reading)).row(0, named=True)
        labels, found = part["label"].to_numpy(), part[column].to_numpy()
        assert row["n"] == part.height == 60
        assert row["parse_rate"] == pytest.approx(52 / 60)
        assert row["auroc_point"] == pytest.approx(roc_auc_score(labels, found))
        assert row["auprc_point"] == pytest.approx(average_precision_score(labels, found))
        assert row["brier_point"] == pytest.approx(brier_score_loss(labels, found))


def test_differences_are_paired_with_the_same_reading_of_the_reference(verdicts: pl.DataFrame) -> None:
    table = tables.results(verdicts, bootstraps=400, seed=1)
    rows = {(row["arm"], row["reading"]): row for row in table.iter_rows(named=True)}
    for reading in ("stated", "tokens"):
        assert rows["decomposition", reading]["auroc_gap_point"] is None
        better, base = rows["stage1+2", reading], rows["decomposition", reading]
        assert better["auroc_gap_point"] == pytest.approx(better["auroc_point"] - base["auroc_point"])
        assert better["auroc_gap_low"] <= better["auroc_gap_point"] <= better["auroc_gap_high"]
    expert = rows["expert", "model"]
    gap = expert["auroc_point"] - rows["decomposition", "stated"]["auroc_point"]
    assert expert["auroc_gap_point"] == pytest.approx(gap)


def test_the_order_of_the_verdicts_changes_no_number(verdicts: pl.DataFrame) -> None:
    table = tables.results(verdicts, bootstraps=50, seed=1)
    shuffled = pl.concat([verdicts.filter(pl.col("arm") == arm).sample(fraction=1.0, shuffle=True, seed=3)
                          for arm in verdicts["arm"].unique(maintain_order=True)])
    assert tables.results(shuffled, bootstraps=50, seed=1).equals(table)


def test_without_the_reference_there_are_no_differences(verdicts: pl.DataFrame) -> None:
    table = tables.results(verdicts.filter(pl.col("arm") != "decomposition"), bootstraps=50, seed=1)
    assert table["auroc_gap_p"].null_count() == table.height


def test_arms_that_judged_other_stays_are_refused(verdicts: pl.DataFrame) -> None:
    short = verdicts.filter((pl.col("arm") != "think") | (pl.col("stay_id") != "s002"))
    with pytest.raises(DataError, match="arm 'think' judged 59 stays, arm 'vanilla' 60"):
        tables.results(short, bootstraps=50, seed=1)


def test_one_class_in_test_is_refused(verdicts: pl.DataFrame) -> None:
    with pytest.raises(DataError, match="labels are 1"):
        tables.results(verdicts.filter(pl.col("label") == 1), bootstraps=50, seed=1)


def test_the_papers_figures_stand_beside_the_arms_that_it_has(verdicts: pl.DataFrame) -> None:
    paper = paper_figures.figures_for("tjh", "mortality", "paper")
    table = tables.results(verdicts, bootstraps=50, seed=1, paper=paper)
    beside = dict(zip(table["arm"], table["paper_auroc"], strict=True))
    assert beside["stage1+2"] == 0.8770 and beside["expert"] is None
    assert tables.headers(table)[-1].startswith("Paper")
    assert "87.70 / 82.95" in tables.markdown(table)
    assert paper_figures.figures_for("synthetic", "mortality", "stratified") is None


def test_markdown_has_a_line_for_each_row_and_equally_many_cells(verdicts: pl.DataFrame) -> None:
    lines = tables.markdown(tables.results(verdicts, bootstraps=50, seed=1)).splitlines()
    assert len(lines) == 2 + 11
    assert {line.count("|") for line in lines} == {len(tables.HEADERS) + 1}


def test_the_table_survives_csv(verdicts: pl.DataFrame) -> None:
    table = tables.results(verdicts, bootstraps=50, seed=1)
    again = pl.read_csv(table.write_csv().encode(), schema=tables.SCHEMA)
    assert again.select("arm", "reading", "n").equals(table.select("arm", "reading", "n"))
    assert again["auroc_mean"].to_list() == pytest.approx(table["auroc_mean"].to_list())


def test_mean_and_sd_are_of_the_papers_resamples_and_intervals_and_differences_of_many(verdicts: pl.DataFrame) -> None:
    few = tables.results(verdicts, bootstraps=50, seed=1, interval_bootstraps=50)
    many = tables.results(verdicts, bootstraps=50, seed=1, interval_bootstraps=400)
    assert many["auroc_sd"].equals(few["auroc_sd"]) and many["brier_mean"].equals(few["brier_mean"])
    assert not many["auroc_low"].equals(few["auroc_low"])
    assert (many["resamples"][0], many["interval_resamples"][0]) == (50, 400)
    assert many["auroc_gap_p"].min() == pytest.approx(2 / 401)  # type: ignore[operator]


def test_the_interval_in_the_table_is_that_of_the_resamples_of_patients(verdicts: pl.DataFrame) -> None:
    found = risks.judged(verdicts)
    patients = {stay: f"p{number // 2}" for number, stay in enumerate(found.stay_ids)}
    table = tables.results(verdicts, bootstraps=50, seed=1, patients=patients, interval_bootstraps=300)
    drawn = statistics.resample(found.labels, 300, 1, [patients[stay] for stay in found.stay_ids])
    values = statistics.measure("auroc", found.labels, found.risks["stage1", "tokens"], drawn)
    row = table.filter((pl.col("arm") == "stage1") & (pl.col("reading") == "tokens")).row(0, named=True)
    assert (row["auroc_low"], row["auroc_high"]) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))


@pytest.mark.slow
def test_holms_correction_is_over_the_arms_of_a_reading_for_each_measure(verdicts: pl.DataFrame) -> None:
    table = tables.results(verdicts, bootstraps=50, seed=1, interval_bootstraps=200)
    for name in tables.COMPARED:
        for reading, arms in (("stated", 4), ("tokens", 4), ("model", 1)):
            part = table.filter((pl.col("reading") == reading) & pl.col(f"{name}_gap_p").is_not_null())
            assert part.height == arms
            assert part[f"{name}_gap_p_holm"].to_list() == pytest.approx(
                multipletests(part[f"{name}_gap_p"], method="holm")[1].tolist())
    assert table.filter(pl.col("arm") == "decomposition")["auroc_gap_p_holm"].null_count() == 2


def test_a_cell_tells_value_interval_mean_and_sd_and_a_difference_both_its_p(verdicts: pl.DataFrame) -> None:
    table = tables.results(verdicts, bootstraps=50, seed=1)
    cells = dict(zip(tables.headers(table), tables.cells(table)[-1], strict=True))
    assert re.fullmatch(r"\d+\.\d \[\d+\.\d, \d+\.\d\] \(\d+\.\d ± \d+\.\d\)", cells["AUROC"])
    assert re.fullmatch(r"[+−]\d+\.\d \[[+−]\d+\.\d, [+−]\d+\.\d\], p = \d\.\d{3}, Holm \d\.\d{3}",
                        cells["AUROC vs reference"])
