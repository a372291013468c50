"""The generated cohort: deterministic, realistic, learnable, and honest about what drives the risk."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from configs.schema import Cohort as Section
from configs.schema import Synthetic
from contracts.errors import DataError
from contracts.features import STATIC, catalogue
from ehr.cohort import Cohort, prepare
from ehr.sources.source import Source
from ehr.sources.synthetic import generate

NAMES = catalogue("mimic_iv").names


@pytest.fixture(scope="module")
def source() -> Source:
    return generate(Synthetic(stays=2000), seed=7)


@pytest.fixture(scope="module")
def cohort(source: Source) -> Cohort:
    return prepare(source, Section(synthetic=Synthetic(stays=2000)), 7)


def last_values(cohort: Cohort, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Standardised last filled values and age of a split, (N, 18), and its labels (N,)."""
    last = cohort.filled.group_by("stay_id", maintain_order=True).last()
    rows = cohort.stays.filter(pl.col("split") == split).join(last, on="stay_id", maintain_order="left")
    parts = []
    for name in (*NAMES, "age"):
        entry = cohort.scaling[name]
        filled = rows[name].fill_null(entry.mean).clip(entry.low, entry.high)
        parts.append((filled.to_numpy() - entry.mean) / entry.sd)
    return np.stack(parts, axis=1), rows["label"].to_numpy()


def auroc_of_last_values(cohort: Cohort) -> float:
    model = LogisticRegression(C=0.3, max_iter=2000).fit(*last_values(cohort, "train"))
    inputs, labels = last_values(cohort, "test")
    return float(roc_auc_score(labels, model.predict_proba(inputs)[:, 1]))


def test_the_same_seed_gives_the_same_source_and_another_seed_another() -> None:
    section = Synthetic(stays=60)
    first, again, other = generate(section, 3), generate(section, 3), generate(section, 4)
    for name in ("stays", "records", "events", "truth"):
        assert getattr(first, name).equals(getattr(again, name))
        assert not getattr(first, name).equals(getattr(other, name))
    assert not set(first.stays["stay_id"]) & set(other.stays["stay_id"])


def test_each_stay_has_one_to_twelve_days_with_one_record_each(source: Source) -> None:
    per_day = source.records.group_by("stay_id", pl.col("time").dt.date().alias("date")).len()
    lengths = per_day.group_by("stay_id").len()["len"]
    assert per_day["len"].unique().to_list() == [1]
    assert (lengths.min(), lengths.max(), lengths.len()) == (1, 12, 2000)


def test_all_measurements_are_plausible_and_of_the_catalogue(source: Source) -> None:
    assert set(source.events["feature"].unique()) == set(NAMES)
    value = pl.col("value")
    ranges = source.events.group_by("feature").agg(value.min().alias("low"), value.max().alias("high"))
    for feature, low, high in ranges.iter_rows():
        item = catalogue("mimic_iv")[feature]
        assert item.low <= low <= high <= item.high


def test_measurements_lie_between_admission_and_discharge(source: Source) -> None:
    placed = source.records.join(source.stays, on="stay_id")
    assert placed.select(pl.col("time").is_between("admitted_at", "discharged_at")).to_series().all()


@pytest.mark.parametrize("missing", [0.0, 0.3, 0.8])
def test_the_share_of_missing_values_is_the_one_asked_for(missing: float) -> None:
    source = generate(Synthetic(stays=400, missing=missing), 1)
    share = 1 - source.events.height / (source.records.height * len(NAMES))
    assert share == pytest.approx(missing, abs=0.01)


@pytest.mark.parametrize("mortality", [0.1, 0.35, 0.8])
def test_the_share_of_deaths_is_the_one_asked_for(mortality: float) -> None:
    stays = generate(Synthetic(stays=5000, mortality=mortality), 1).stays
    assert stays["label"].mean() == pytest.approx(mortality, abs=0.025)


def test_the_parts_of_the_coma_scale_add_up_and_pressures_are_ordered() -> None:
    source = generate(Synthetic(stays=300, missing=0.0), 1)
    rows = source.events.pivot(on="feature", index=["stay_id", "time"], values="value")
    coma = rows.select(pl.sum_horizontal(f"Glasgow coma scale {part}" for part in ("eye opening", "motor response",
                                                                                  "verbal response"))).to_series()
    assert coma.equals(rows["Glasgow coma scale total"], check_names=False)
    assert (rows["Systolic blood pressure"] > rows["Diastolic blood pressure"]).all()
    pulse = rows["Systolic blood pressure"] - rows["Diastolic blood pressure"]
    error = rows["Mean blood pressure"] - rows["Diastolic blood pressure"] - pulse / 3
    assert abs(error.mean()) < 0.1 and error.std() < 2.0


def test_vital_signs_are_correlated_as_at_the_bedside() -> None:
    rows = generate(Synthetic(stays=1500, missing=0.0), 1).events.pivot(on="feature", index=["stay_id", "time"],
                                                                       values="value")
    def correlation(one: str, two: str) -> float:
        return float(np.corrcoef(rows[one].to_numpy(), rows[two].to_numpy())[0, 1])
    assert correlation("Systolic blood pressure", "Mean blood pressure") > 0.7
    assert correlation("Oxygen saturation", "Fraction inspired oxygen") < -0.5
    assert correlation("Respiratory rate", "Heart Rate") > 0.15
    assert correlation("Height", "Weight") > 0.1


def test_those_who_die_worsen_and_the_others_worsen_less() -> None:
    source = generate(Synthetic(stays=3000, missing=0.0), 1)
    oxygen = source.events.filter(pl.col("feature") == "Oxygen saturation").sort("stay_id", "time")
    trend = oxygen.group_by("stay_id").agg(pl.col("value").last() - pl.col("value").first(), pl.len())
    trend = trend.filter(pl.col("len") > 3)
    means = trend.join(source.stays, on="stay_id").group_by("label").agg(pl.col("value").mean()).sort("label")["value"]
    assert means[1] < means[0] < 0.5 and means[1] < -1.0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_logistic_regression_on_last_values_learns_the_hazard(seed: int) -> None:
    section = Section(synthetic=Synthetic(stays=2000))
    assert 0.80 <= auroc_of_last_values(prepare(generate(section.synthetic, seed), section, seed)) <= 0.95


def test_the_default_of_240_stays_is_learnable_on_average() -> None:
    section = Section()
    scores = [auroc_of_last_values(prepare(generate(section.synthetic, seed), section, seed)) for seed in range(8)]
    assert 0.78 <= float(np.mean(scores)) <= 0.95


def test_more_strength_makes_the_label_easier() -> None:
    scores = []
    for strength in (0.3, 3.0, 15.0):
        section = Section(synthetic=Synthetic(stays=3000, strength=strength))
        scores.append(auroc_of_last_values(prepare(generate(section.synthetic, 5), section, 5)))
    assert scores[0] + 0.1 < scores[1] < scores[2] - 0.02


def test_the_truth_ranks_few_features_of_each_stay_by_their_effect(source: Source) -> None:
    truth = source.truth
    assert truth is not None and len(set(source.stays["stay_id"]) - set(truth["stay_id"])) < 10
    assert set(truth["feature"].unique()) <= {*NAMES, STATIC} and STATIC in truth["feature"]
    sizes = truth.group_by("stay_id").len()["len"]
    assert 3 <= sizes.median() <= 6 and sizes.max() <= 13 and truth["effect"].abs().min() > 0
    by_rank = truth.sort("stay_id", "rank")
    steps = by_rank.with_columns(pl.col("effect").abs().diff().over("stay_id").alias("change"))
    assert steps["change"].drop_nulls().max() <= 0
    assert by_rank.group_by("stay_id").agg(pl.col("rank").max() - pl.len()).get_column("rank").unique().to_list() == [0]


def test_the_planted_features_explain_the_label_and_random_ones_do_not(source: Source) -> None:
    truth = source.truth
    assert truth is not None
    total = truth.group_by("stay_id").agg(pl.col("effect").sum()).join(source.stays, on="stay_id")
    planted = roc_auc_score(total["label"], total["effect"])
    shuffled = total["effect"].shuffle(seed=1)
    assert planted > 0.85 and abs(roc_auc_score(total["label"], shuffled) - 0.5) < 0.05


def test_values_of_a_stays_planted_features_deviate_more_than_those_of_others(cohort: Cohort) -> None:
    last = cohort.filled.group_by("stay_id", maintain_order=True).last().select("stay_id", *NAMES)
    scaling = cohort.scaling
    z = last.with_columns(((pl.col(name) - scaling[name].mean) / scaling[name].sd).abs() for name in NAMES)
    long = z.unpivot(on=list(NAMES), index="stay_id", variable_name="feature", value_name="z").drop_nulls("z")
    assert cohort.truth is not None
    strong = cohort.truth.filter((pl.col("effect") > 1.0) & (pl.col("feature") != STATIC))
    planted = long.join(strong, on=["stay_id", "feature"], how="semi")["z"].mean()
    others = long.join(cohort.truth, on=["stay_id", "feature"], how="anti")["z"].mean()
    assert planted > 1.5 * others


def test_a_cohort_of_one_label_is_refused() -> None:
    with pytest.raises(DataError, match="labels of all 20 stays are"):
        # About every second seed has no death among 20 stays.
        for seed in range(30):
            generate(Synthetic(stays=20, mortality=0.05, strength=0.01), seed)
