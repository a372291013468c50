import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, roc_auc_score

from contracts.errors import DataError
from ehr.small_cells import hidden
from evaluation.risks import Judged
from evaluation.subgroups import MEASURED, SCHEMA, subgroups


def _case(ages: list[float], sexes: list[str], labels: list[int]) -> tuple[Judged, pl.DataFrame]:
    names = [f"s{number:04d}" for number in range(len(ages))]
    risks = np.clip(0.3 + 0.4 * np.array(labels) + np.random.default_rng(1).normal(0, 0.3, len(ages)), 0, 1)
    stays = pl.DataFrame({"stay_id": names, "patient_id": names, "age": ages, "sex": sexes}).reverse()
    return Judged(tuple(names), np.array(labels), {("stage1", "tokens"): risks, ("expert", "model"): risks / 2}), stays


def _large(seed: int = 0, size: int = 400) -> tuple[Judged, pl.DataFrame]:
    draw = np.random.default_rng(seed)
    return _case(draw.uniform(18, 95, size).tolist(), draw.choice(["male", "female"], size).tolist(),
                 draw.integers(0, 2, size).tolist())


def test_every_group_is_measured_on_its_own_stays() -> None:
    found, stays = _large()
    table = subgroups(found, stays, 50, 1, 5, hidden)
    assert table.schema == pl.Schema(SCHEMA) and table.height == 6 * 2 and not table["hidden"].any()
    people = pl.DataFrame({"stay_id": found.stay_ids}).join(stays, on="stay_id", maintain_order="left")
    for level, inside in (("65–79", people["age"].is_between(65, 80, closed="left")),
                          ("female", people["sex"] == "female")):
        rows = inside.to_numpy()
        row = table.filter((pl.col("level") == level) & (pl.col("arm") == "stage1")).row(0, named=True)
        labels, risks = found.labels[rows], found.risks["stage1", "tokens"][rows]
        assert (row["n"], row["positives"]) == (rows.sum(), labels.sum())
        assert row["auroc"] == pytest.approx(roc_auc_score(labels, risks))
        assert row["brier"] == pytest.approx(brier_score_loss(labels, risks))
        assert row["auroc_low"] < row["auroc"] < row["auroc_high"]
        assert (row["mean_risk"], row["observed"]) == pytest.approx((risks.mean(), labels.mean()))


def test_ages_fall_into_their_bands_by_years_completed() -> None:
    ages = [0.5, 49.9, 50.0, 64.99, 65.0, 79.9, 80.0, 101.0, float("nan")]
    found, stays = _case(ages, ["Male"] * 9, [0, 1] * 4 + [0])
    table = subgroups(found, stays, 5, 1, 1, hidden).filter(pl.col("arm") == "expert")
    assert dict(table.filter(pl.col("variable") == "age").select("level", "n").rows()) == {
        "<50": 2, "50–64": 2, "65–79": 2, "≥80": 2, "unknown": 1}
    assert table.filter(pl.col("variable") == "sex").select("level", "n").rows() == [("male", 9)]


def test_a_small_group_is_hidden_with_another_that_would_give_it_away() -> None:
    found, stays = _case([30.0] * 40 + [55.0] * 20 + [70.0] * 30 + [85.0] * 3, ["male", "female"] * 46 + ["male"],
                         [0, 0, 1, 1] * 23 + [0])
    table = subgroups(found, stays, 20, 1, 5, hidden).filter(pl.col("arm") == "stage1")
    ages = {row["level"]: row for row in table.filter(pl.col("variable") == "age").iter_rows(named=True)}
    assert [level for level, row in ages.items() if row["hidden"]] == ["50–64", "≥80"]
    for row in (ages["50–64"], ages["≥80"]):
        assert row["n"] is None and all(row[name] is None for name in MEASURED)
    assert ages["<50"]["n"] == 40 and ages["<50"]["auroc"] is not None
    assert not table.filter(pl.col("variable") == "sex")["hidden"].any()


def test_a_group_of_one_class_has_no_ranking() -> None:
    found, stays = _case([30.0] * 20 + [70.0] * 20, ["male"] * 40, [0] * 20 + [0, 1] * 10)
    young = subgroups(found, stays, 20, 1, 5, hidden).filter(pl.col("level") == "<50").row(0, named=True)
    assert (young["hidden"], young["n"], young["positives"], young["auroc"]) == (False, 20, 0, None)
    assert young["brier"] is not None


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(10, 60))
def test_no_small_count_is_shown_nor_to_be_worked_out_from_those_shown(seed: int, size: int) -> None:
    found, stays = _large(seed, size)
    if len(set(found.labels)) < 2:
        return
    table = subgroups(found, stays, 5, 1, 5, hidden).filter(pl.col("arm") == "expert")
    for _, part in table.group_by("variable"):
        for count, total in (("n", size), ("positives", int(found.labels.sum()))):
            shown = part[count].drop_nulls()
            assert not ((shown > 0) & (shown < 5)).any()
            rest = total - int(shown.sum())
            # what is hidden is several groups, or nothing that anybody could be found in
            assert part[count].null_count() != 1 or rest == 0 or rest >= 5
        both = part.drop_nulls(["n", "positives"])
        well = both["n"] - both["positives"]
        assert not ((well > 0) & (well < 5)).any()
        assert part.filter(pl.col("n").is_null() | pl.col("positives").is_null())["hidden"].all()


def test_a_stay_of_unknown_age_and_sex_is_refused() -> None:
    found, stays = _large(size=40)
    with pytest.raises(DataError, match="1 judged stays are not among 39 stays"):
        subgroups(found, stays.head(39), 5, 1, 5, hidden)


def test_many_stays_of_one_patient_are_one_patient() -> None:
    found, stays = _case([85.0] * 12 + [40.0] * 28, ["male"] * 40, [0, 1] * 20)
    one = stays.with_columns(patient_id=pl.when(pl.col("age") > 80).then(pl.lit("q")).otherwise(pl.col("patient_id")))
    hidden_rows = {people["patient_id"].n_unique(): subgroups(found, people, 20, 1, 5, hidden).filter(
        pl.col("level") == "≥80") for people in (stays, one)}
    assert not hidden_rows[40]["hidden"].any() and hidden_rows[29]["hidden"].all()
    assert hidden_rows[29]["n"].null_count() == hidden_rows[29]["brier"].null_count() == 2
    shown = subgroups(found, one, 20, 1, 1, hidden).filter(pl.col("level") == "≥80").row(0, named=True)
    assert (shown["n"], shown["auroc"]) == (12, None) and shown["brier"] is not None
