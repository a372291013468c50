import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr

from evaluation import uncertainty
from evaluation.token_entropy import TOKENS
from evaluation.uncertainty import ANSWERS, GROUPS, ROLLOUTS, clusters, correlations, curves, of_answers, of_rollouts
from support.judged import Finder, stays_of, verdicts_of


def rollouts_of(stays: int = 30, together: float = 1.0, seed: int = 0) -> pl.DataFrame:
    """Rollouts of two steps, four a stay; risks are the nearer to one half the larger the entropy, if `together`."""
    draw = np.random.default_rng(seed)
    rows = []
    for number in range(stays):
        for sample in range(4):
            unsure = draw.random()
            near = together * unsure + (1 - together) * draw.random()
            rows.append({"stay_id": f"s{number}", "step": 2 * (number % 2), "sample": sample, "round": 0,
                         "kept": True, "mention_entropy": unsure + number % 2,
                         "probability": 0.5 + 0.5 * (1 - near) * (1 if draw.random() < 0.5 else -1)})
    return pl.DataFrame(rows)


def answers_of(count: int = 240) -> pl.DataFrame:
    """An arm's answers whose entropy at "answer" follows the entropy of the risk."""
    frame = verdicts_of("stage1+2", stays_of(count), 1.5)
    risk = frame["token_probability"].to_numpy()
    unsure = -(risk * np.log(risk) + (1 - risk) * np.log(1 - risk))
    spans = [None if at < 0 else (at, at + 6) for at in (text.find("answer") for text in frame["text"])]
    tokens = [[{"start": span[0], "end": span[1], "entropy": value}, {"start": span[1], "end": span[1] + 1,
                                                                       "entropy": 9.0}] if span else []
              for span, value in zip(spans, unsure, strict=True)]
    return frame.with_columns(pl.Series("token_entropies", tokens, dtype=TOKENS))


def test_entropy_that_goes_with_uncertainty_is_found_and_other_is_not() -> None:
    together = correlations(of_rollouts(rollouts_of(together=1.0)), {}, 100, 1)
    assert together.schema == pl.Schema(uncertainty.SCHEMA)
    row = together.filter(source=ROLLOUTS).row(0, named=True)
    assert row["rho"] == pytest.approx(1.0) and row["low"] > 0.99 and (row["n"], row["stays"]) == (120, 30)
    apart = correlations(of_rollouts(rollouts_of(together=0.0)), {}, 100, 1).filter(source=ROLLOUTS).row(0, named=True)
    assert apart["low"] < 0 < apart["high"]


def test_rollouts_are_ranked_within_their_step() -> None:
    frame = rollouts_of(together=0.0)
    drifting = frame.with_columns(probability=pl.when(pl.col("step") == 2).then(0.5 + (pl.col("probability") - 0.5) / 9)
                                  .otherwise(0.5 + pl.col("probability").sub(0.5).sign() * 0.49))
    points = of_rollouts(drifting)[ROLLOUTS]
    assert spearmanr(points["entropy"], points["stated risk entropy"]).statistic > 0.6
    row = correlations({ROLLOUTS: points}, {}, 50, 1).row(0, named=True)
    assert abs(row["rho"]) < 0.25


def test_only_rollouts_that_were_trained_on_and_can_be_read_count() -> None:
    frame = rollouts_of().with_columns(
        kept=pl.col("sample") != 0, probability=pl.when(pl.col("sample") != 1).then(pl.col("probability")),
        mention_entropy=pl.when(pl.col("stay_id") != "s3").then(pl.col("mention_entropy")))
    points = of_rollouts(frame)
    assert points[ROLLOUTS].height == 29 * 2 and points[GROUPS].height == 29
    assert "s3" not in points[ROLLOUTS]["stay_id"]


def test_the_spread_of_a_group_is_that_of_its_stated_risks() -> None:
    frame = rollouts_of(12)
    groups = of_rollouts(frame)[GROUPS]
    for stay, spread, entropy in groups.select("stay_id", "spread of stated risks", "entropy").iter_rows():
        part = frame.filter(stay_id=stay)
        assert spread == pytest.approx(part["probability"].to_numpy().std())
        assert entropy == pytest.approx(part["mention_entropy"].to_numpy().mean())


def test_the_entropy_of_a_risk_is_that_of_a_coin() -> None:
    frame = rollouts_of(3).head(4).with_columns(probability=pl.Series([0.0, 0.5, 1.0, 0.9]))
    found = of_rollouts(frame)[ROLLOUTS]["stated risk entropy"].to_list()
    assert found == pytest.approx([0.0, np.log(2), 0.0, 0.3250829733914482])


def test_test_answers_count_where_they_can_be_read_and_name_a_feature() -> None:
    frame = answers_of()
    points = of_answers(frame, Finder("Answer"))["stage1+2"]  # type: ignore[arg-type]
    assert points.height == frame["parsed"].sum()
    row = correlations({}, {"stage1+2": points}, 100, 1).filter(uncertainty="token risk entropy").row(0, named=True)
    assert row["rho"] == pytest.approx(1.0) and row["entropy"] == "lower bound" and row["arm"] == "stage1+2"
    bare = frame.with_columns(token_entropies=pl.lit(None, dtype=TOKENS))
    assert of_answers(bare, Finder("Answer")) == {}  # type: ignore[arg-type]


def test_few_stays_have_no_correlation_and_no_curve() -> None:
    points = of_rollouts(rollouts_of(9))
    assert correlations(points, {}, 20, 1).is_empty()
    assert curves(of_rollouts(rollouts_of(20)), {}, 5).filter(source=GROUPS).is_empty()


def test_a_curve_has_five_equally_large_parts_and_names_no_stay() -> None:
    points = of_rollouts(rollouts_of(50))
    curve = curves(points, of_answers(answers_of(), Finder("Answer")), 5)  # type: ignore[arg-type]
    assert curve.schema == pl.Schema(uncertainty.CURVE)
    for (source, _arm, _name), part in curve.group_by("source", "arm", "uncertainty"):
        assert part["part"].to_list() == [1, 2, 3, 4, 5] and part["entropy"].is_sorted()
        assert int(part["n"].max()) - int(part["n"].min()) <= 1  # type: ignore[arg-type]
        if source != ANSWERS:
            assert part["n"].sum() == points[str(source)].height
    rising = curve.filter(source=ROLLOUTS, uncertainty="stated risk entropy").sort("part")
    assert rising["value"][-1] > rising["value"][0]


def test_all_rollouts_of_a_stay_are_drawn_together() -> None:
    names = ["a", "a", "b", "c", "c", "c"]
    drawn = clusters(names, 200, 3)
    assert drawn.shape == (200, 6) and np.array_equal(drawn, clusters(names, 200, 3))
    assert (drawn[:, 0] == drawn[:, 1]).all() and (drawn[:, 3] == drawn[:, 5]).all()
    assert (drawn[:, [0, 2, 3]].sum(axis=1) == 3).all()
