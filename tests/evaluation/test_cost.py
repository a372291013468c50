"""Costs of arms: shared stages, seconds a patient, money."""

from __future__ import annotations

import pytest

from evaluation.cost import ArmCost, Judging, Prices, Stage, arms_grid, costs, stages_grid

COHORT, SEARCH = Stage("cohort", "cohort-1", 10.0), Stage("trajectories", "trajectories-1", 200.0, 5000.0)
SFT, RL = Stage("sft", "sft-1", 50.0, 900.0), Stage("rl", "rl-1", 400.0, 7000.0)
ASKED = Judging(200, 100.0, 60_000, 8_000, 15_000.0, on_gpu=False)
ARMS = (ArmCost("decomposition", (), ASKED), ArmCost("stage1", (COHORT, SEARCH, SFT), ASKED),
        ArmCost("stage1+2", (COHORT, SEARCH, SFT, RL), ASKED))


def test_every_stage_of_an_arm_counts_and_those_of_several_arms_count_as_shared() -> None:
    rows = {row["arm"]: row for row in costs(ARMS, Prices()).arms.iter_rows(named=True)}
    assert (rows["stage1"]["training_seconds"], rows["stage1"]["shared_seconds"]) == (260.0, 260.0)
    assert (rows["stage1+2"]["training_seconds"], rows["stage1+2"]["shared_seconds"]) == (660.0, 260.0)
    assert rows["stage1+2"]["training_tokens"] == 12_900.0
    assert rows["decomposition"]["training_seconds"] == 0.0 and rows["decomposition"]["stages"] == 0


def test_judging_is_told_by_patient_and_by_answer() -> None:
    row = costs(ARMS, Prices()).arms.row(0, named=True)
    assert (row["seconds_per_patient"], row["tokens_per_answer"], row["prompt_tokens_per_answer"]) == (0.5, 40.0, 300.0)
    assert row["cached_share"] == 0.25 and row["price_per_1000"] is None


def test_money_is_hours_of_a_thousand_patients_at_the_price_of_where_it_ran() -> None:
    # 1,000 patients take 500 seconds: 500 / 3600 hours at 7.2 an hour
    assert costs(ARMS, Prices(gpu_hour=100.0, cpu_hour=7.2)).arms["price_per_1000"][0] == pytest.approx(1.0)
    assert costs(ARMS, Prices(gpu_hour=100.0)).arms["price_per_1000"].null_count() == 3


@pytest.mark.parametrize(("prices", "on_gpu", "price"), [
    (Prices(3.0, 1.0), True, 3.0), (Prices(3.0, 1.0), False, 1.0), (Prices(3.0, 1.0), None, None),
    (Prices(3.0, None), None, 3.0), (Prices(None, 0.0), False, 0.0), (Prices(), True, None)])
def test_a_server_of_unknown_kind_has_a_price_only_where_one_is_given(prices: Prices, on_gpu: bool | None,
                                                                     price: float | None) -> None:
    assert prices.of(on_gpu) == price


def test_the_table_has_money_only_where_a_price_is_given() -> None:
    heads, rows = arms_grid(costs(ARMS, Prices()))
    assert "Price" not in heads[-1] and {len(row) for row in rows} == {len(heads)}
    heads, rows = arms_grid(costs(ARMS, Prices(cpu_hour=7.2)))
    assert heads[-1] == "Price of judging 1,000 patients" and [row[-1] for row in rows] == ["1"] * 3
    assert rows[0][:4] == ["decomposition", "–", "–", "–"] and rows[2][1:4] == ["660", "260", "12,900"]


def test_what_is_not_known_is_a_dash_or_a_lower_bound_and_not_a_zero() -> None:
    lost = ArmCost("stage1", (Stage("cohort", "cohort-0", None), SFT), Judging(10, None, 100, 50))
    found = costs([lost], Prices(cpu_hour=1.0))
    line = dict(zip(*(part if number == 0 else part[0] for number, part in enumerate(arms_grid(found))), strict=True))
    assert line["Training [s]"] == "> 50"
    assert (line["Judging [s per patient]"], line["of them cached"]) == ("–", "–")
    assert line["Price of judging 1,000 patients"] == "–"


def test_each_stage_stands_once_with_the_arms_that_need_it() -> None:
    heads, rows = stages_grid(costs(ARMS, Prices()))
    assert [row[0] for row in rows] == ["cohort", "trajectories", "sft", "rl"]
    told = {row[0]: dict(zip(heads, row, strict=True)) for row in rows}
    assert told["sft"]["Arms"] == "stage1, stage1+2 (shared)" and told["rl"]["Arms"] == "stage1+2"
    assert told["cohort"]["Tokens"] == "–"
