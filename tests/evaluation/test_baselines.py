import os
from pathlib import Path

import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from configs.schema import Cohort
from contracts.errors import ContractError, DataError, MissingFileError
from ehr import cohort, folder
from evaluation.baselines import BOOSTING, EXPERT, LOGISTIC, SINGLE, judge_baselines, judge_expert
from support.judged import readings_of, stays_of, write_cohort

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[pl.DataFrame, dict[str, str], pl.DataFrame]:
    folder = tmp_path_factory.mktemp("cohort")
    stays = write_cohort(folder)
    verdicts, notes = judge_baselines(folder, seed=1)
    return verdicts, notes, stays


def _auroc(verdicts: pl.DataFrame, arm: str) -> float:
    part = verdicts.filter(pl.col("arm") == arm)
    return float(roc_auc_score(part["label"].to_numpy(), part["probability"].to_numpy()))


def test_the_simple_models_find_what_was_planted(judged: tuple[pl.DataFrame, dict[str, str], pl.DataFrame]) -> None:
    verdicts, notes, _ = judged
    assert _auroc(verdicts, LOGISTIC) > 0.9
    assert _auroc(verdicts, BOOSTING) > 0.8
    assert _auroc(verdicts, SINGLE) > 0.75
    assert notes[SINGLE].startswith("Lactate,")


def test_the_first_visit_is_harder_than_the_last(judged: tuple[pl.DataFrame, dict[str, str], pl.DataFrame]) -> None:
    verdicts, _, _ = judged
    assert _auroc(verdicts, f"{LOGISTIC}, first visit") < _auroc(verdicts, LOGISTIC)


def test_every_arm_judges_each_test_stay_once(judged: tuple[pl.DataFrame, dict[str, str], pl.DataFrame]) -> None:
    verdicts, notes, stays = judged
    expected = stays.filter(pl.col("split") == "test")["stay_id"].to_list()
    assert set(verdicts["arm"]) == set(notes) and len(notes) == 6
    for _, part in verdicts.group_by("arm"):
        assert part["stay_id"].to_list() == expected


def test_test_labels_change_nothing_in_the_risks(tmp_path: Path) -> None:
    stays = write_cohort(tmp_path)
    before, _ = judge_baselines(tmp_path, seed=1, visits=["last"])
    flipped = stays.with_columns(pl.when(pl.col("split") == "test").then(1 - pl.col("label")).otherwise(pl.col("label"))
                                 .cast(pl.Int8).alias("label"))
    flipped.write_parquet(tmp_path / "stays.parquet")
    after, _ = judge_baselines(tmp_path, seed=1, visits=["last"])
    assert before["probability"].to_list() == after["probability"].to_list()
    assert before["label"].to_list() != after["label"].to_list()


def test_a_chosen_list_of_stays_is_judged_in_its_order(tmp_path: Path) -> None:
    write_cohort(tmp_path)
    verdicts, _ = judge_baselines(tmp_path, seed=1, stay_ids=["s008", "s002", "s005"], visits=["last"])
    assert verdicts.filter(pl.col("arm") == LOGISTIC)["stay_id"].to_list() == ["s008", "s002", "s005"]


@pytest.mark.parametrize("kept", [0, 1])
def test_a_feature_that_hardly_any_stay_has_is_no_obstacle(tmp_path: Path, kept: int) -> None:
    write_cohort(tmp_path)
    filled = pl.read_parquet(tmp_path / "filled.parquet")
    rare = next(name for name in filled.columns if name == "Lactate")
    first = pl.col("stay_id").is_in(filled["stay_id"].unique(maintain_order=True).head(kept).implode())
    filled.with_columns(pl.when(first).then(pl.col(rare)).alias(rare)).write_parquet(tmp_path / "filled.parquet")
    verdicts, _ = judge_baselines(tmp_path, seed=1, visits=["last"])
    assert verdicts["probability"].is_finite().all() and verdicts["probability"].n_unique() > 10


def test_a_training_stay_is_never_judged(tmp_path: Path) -> None:
    write_cohort(tmp_path)
    with pytest.raises(ContractError, match="not in the test split"):
        judge_baselines(tmp_path, seed=1, stay_ids=["s000"], visits=["last"])


def test_one_class_in_training_is_refused(tmp_path: Path) -> None:
    stays = write_cohort(tmp_path)
    stays.with_columns(pl.when(pl.col("split") == "train").then(0).otherwise(pl.col("label")).cast(pl.Int8)
                       .alias("label")).write_parquet(tmp_path / "stays.parquet")
    with pytest.raises(DataError, match="0 training stays of one class"):
        judge_baselines(tmp_path, seed=1)


def test_a_folder_without_the_cohort_says_which_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="stays.parquet"):
        judge_baselines(tmp_path, seed=1)


def test_the_expert_is_an_arm_with_its_own_risks() -> None:
    stays = stays_of(60)
    readings = readings_of(stays)
    verdicts = judge_expert(readings, stays)
    risks = dict(readings.select("stay_id", "risk").iter_rows())
    assert set(verdicts["arm"]) == {EXPERT}
    assert all(risk == risks[stay] for stay, risk in verdicts.select("stay_id", "token_probability").iter_rows())


def test_a_test_stay_that_the_expert_did_not_read_is_refused() -> None:
    stays = stays_of(60)
    readings = readings_of(stays).filter(pl.col("stay_id") != "s002")
    with pytest.raises(ContractError, match="1 of 20"):
        judge_expert(readings, stays)


@pytest.mark.real_data
@pytest.mark.skipif("EAG_RL_DATA" not in os.environ, reason="EAG_RL_DATA does not name the folder of the real data")
def test_one_laboratory_value_nearly_solves_the_last_visit_of_tjh(tmp_path: Path) -> None:
    section = Cohort(source="tjh", split="paper")
    source = cohort.read_source(section, 42, Path(os.environ["EAG_RL_DATA"]))
    folder.write(cohort.prepare(source, section, 42), tmp_path / "cohort")
    verdicts, notes = judge_baselines(tmp_path / "cohort", seed=42, visits=["last"])
    assert _auroc(verdicts, LOGISTIC) == pytest.approx(0.99, abs=0.01)
    assert _auroc(verdicts, SINGLE) == pytest.approx(0.978, abs=0.005)
    assert notes[SINGLE].startswith("Lactate dehydrogenase,")
