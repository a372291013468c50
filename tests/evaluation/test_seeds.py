"""Several trainings of an arm: means, spreads, and intervals over trainings and patients."""

from __future__ import annotations

import re

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score
from statsmodels.stats.multitest import multipletests

from contracts.errors import DataError
from evaluation import risks, seeds, statistics, tables
from evaluation.baselines import judge_expert
from support.judged import POLICY_ARMS, readings_of, stays_of, verdicts_of

STAYS = stays_of(180)
TRAINED = ("stage1", "stage1+2")


@pytest.fixture(scope="module")
def first() -> pl.DataFrame:
    policy = [verdicts_of(arm, STAYS, skill, seed) for seed, (arm, skill) in enumerate(POLICY_ARMS.items())]
    return pl.concat([*policy, judge_expert(readings_of(STAYS), STAYS)])


def _again(seed: int, arms: tuple[str, ...] = TRAINED) -> pl.DataFrame:
    return pl.concat([verdicts_of(arm, STAYS, POLICY_ARMS[arm], 100 * seed + place) for place, arm in enumerate(arms)])


@pytest.fixture(scope="module")
def table(first: pl.DataFrame) -> pl.DataFrame:
    return tables.results(first, 50, 1, interval_bootstraps=300, retrained=[_again(2), _again(3)])


def _row(table: pl.DataFrame, arm: str, reading: str = "tokens") -> dict[str, object]:
    return table.filter((pl.col("arm") == arm) & (pl.col("reading") == reading)).row(0, named=True)


def test_a_row_is_the_mean_of_its_trainings_and_says_how_many_and_how_far_they_differ(
        first: pl.DataFrame, table: pl.DataFrame) -> None:
    frames = [first, _again(2), _again(3)]
    points = []
    for frame in frames:
        part = frame.filter(pl.col("arm") == "stage1")
        points.append(roc_auc_score(part["label"].to_numpy(), part["token_probability"].to_numpy()))
    row = _row(table, "stage1")
    assert row["seeds"] == 3
    assert row["auroc_point"] == pytest.approx(np.mean(points))
    assert row["auroc_seed_sd"] == pytest.approx(np.std(points, ddof=1)) and np.std(points) > 0
    assert [_row(table, arm)["seeds"] for arm in ("vanilla", "stage1+2")] == [1, 3]
    assert _row(table, "vanilla")["auroc_seed_sd"] is None


def test_arms_trained_once_stand_as_they_would_without_the_others(first: pl.DataFrame, table: pl.DataFrame) -> None:
    alone = tables.results(first, 50, 1, interval_bootstraps=300)
    for arm in ("vanilla", "think", "decomposition"):
        # Holm's correction is over all arms, so it alone may move
        row, other = ({name: value for name, value in _row(one, arm).items() if not name.endswith("p_holm")}
                      for one in (table, alone))
        assert row == other


def test_the_interval_draws_trainings_and_then_patients(first: pl.DataFrame) -> None:
    """The same by a plain loop over resamples."""
    frames = [frame.filter(pl.col("arm") == "stage1") for frame in (first, _again(2), _again(3))]
    table = tables.results(frames[0], 20, 1, interval_bootstraps=40, retrained=frames[1:])
    every = [risks.judged(frame) for frame in frames]
    labels = every[0].labels
    drawn = statistics.resample(labels, 40, 1)
    taken = seeds.drawn(3, 40, 1)
    values = []
    for trainings, counts in zip(taken, drawn.counts, strict=True):
        rows = np.repeat(np.arange(labels.size), counts)
        values.append(np.mean([roc_auc_score(labels[rows], every[one].risks["stage1", "tokens"][rows])
                               for one in trainings]))
    row = _row(table, "stage1")
    assert (row["auroc_low"], row["auroc_high"]) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))


def test_the_difference_accounts_for_seeds_and_patients_and_keeps_holms_correction(table: pl.DataFrame) -> None:
    row, base = _row(table, "stage1+2"), _row(table, "decomposition")
    assert row["auroc_gap_point"] == pytest.approx(row["auroc_point"] - base["auroc_point"])  # type: ignore[operator]
    part = table.filter((pl.col("reading") == "tokens") & pl.col("auroc_gap_p").is_not_null())
    assert part["auroc_gap_p_holm"].to_list() == pytest.approx(
        multipletests(part["auroc_gap_p"], method="holm")[1].tolist())


def test_arms_with_equally_many_trainings_take_the_same_ones() -> None:
    """So an arm that differs from another by a constant in each training differs by that constant in each resample."""
    values = np.random.default_rng(0).random((4, 200))
    assert seeds.over_seeds(values + 0.1, 7) - seeds.over_seeds(values, 7) == pytest.approx(np.full(200, 0.1))
    assert (seeds.drawn(4, 50, 7) == seeds.drawn(4, 50, 7)).all() and (seeds.drawn(4, 50, 7) != seeds.drawn(
        4, 50, 8)).any()


def test_trainings_that_differ_widen_the_interval_by_as_much_as_theory_says() -> None:
    """With no spread over patients, the variance of a mean of S drawn trainings is their variance (ddof 0) over S."""
    levels = np.array([0.6, 0.7, 0.9])
    values = np.repeat(levels[:, None], 20_000, axis=1)
    assert seeds.over_seeds(values, 1).var() == pytest.approx(levels.var() / 3, rel=0.05)
    assert (seeds.over_seeds(values[:1], 1) == values[0]).all()


def test_a_training_that_judged_other_stays_or_unknown_arms_is_refused(first: pl.DataFrame) -> None:
    with pytest.raises(DataError, match="training 2 judged 59 stays, the first 60"):
        tables.results(first, 20, 1, retrained=[_again(2).filter(pl.col("stay_id") != "s002")])
    flipped = _again(2).with_columns(label=(1 - pl.col("label")).cast(pl.Int8))
    with pytest.raises(DataError, match="not the same with the same labels"):
        tables.results(first, 20, 1, retrained=[flipped])
    with pytest.raises(DataError, match="training 2 has stage1"):
        tables.results(first.filter(pl.col("arm") != "stage1"), 20, 1, retrained=[_again(2)])


def test_each_training_has_a_row_of_its_own_with_its_seed(first: pl.DataFrame, table: pl.DataFrame) -> None:
    frame = seeds.by_seed([first, _again(2), _again(3)], [42, 43, 44])
    part = frame.filter((pl.col("arm") == "stage1") & (pl.col("reading") == "stated"))
    assert part["seed"].to_list() == [42, 43, 44]
    assert part["brier"].mean() == pytest.approx(_row(table, "stage1", "stated")["brier_point"])
    assert frame.filter(pl.col("arm") == "vanilla")["seed"].to_list() == [42, 42]


def test_a_cell_tells_the_spread_over_seeds_beside_that_over_patients(table: pl.DataFrame) -> None:
    lines = {(row[0], row[1]): dict(zip(tables.headers(table), row, strict=True)) for row in tables.cells(table)}
    assert re.fullmatch(r"\d+\.\d \[\d+\.\d, \d+\.\d\] \(\d+\.\d ± \d+\.\d; seeds ± \d+\.\d\)",
                        lines["stage1", "tokens"]["AUROC"])
    assert lines["stage1", "tokens"]["Seeds"] == "3" and lines["vanilla", "tokens"]["Seeds"] == "1"
    assert "seeds" not in lines["vanilla", "tokens"]["AUROC"]
