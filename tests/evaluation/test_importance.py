from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from threadpoolctl import threadpool_limits

from configs.schema import Cohort
from contracts.errors import DataError, MissingFileError
from contracts.features import STATIC
from contracts.frames import READINGS, top_features
from ehr import cohort, folder
from evaluation import baselines, importance
from evaluation.baselines import Table, fit_boosting, read_cohort, tabulate
from evaluation.importance import background, groups, read_boosting
from prompts.guidance import expert_features
from support.judged import FEATURES, readings_of, write_cohort

ROW = 7


@pytest.fixture(scope="module", autouse=True)
def _one_kind_of_trees() -> Iterator[None]:
    """A grid of one: what is chosen is tested with the baselines."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baselines, "_TREES", {"trees__min_samples_leaf": [5], "trees__max_iter": [50]})
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Table, pl.DataFrame]:
    place = tmp_path_factory.mktemp("cohort")
    write_cohort(place, 240)
    return place, tabulate(*read_cohort(place)), read_boosting(place, 1)[0]


def test_readings_keep_their_contract_for_every_stay(made: tuple[Path, Table, pl.DataFrame]) -> None:
    _, table, readings = made
    READINGS.check(readings)
    assert readings["stay_id"].unique(maintain_order=True).to_list() == list(table.stay_ids)
    by_stay = readings.group_by("stay_id").agg(pl.col("attention").sum().alias("sum"), pl.col("rank").sort(),
                                               pl.col("feature"))
    assert np.allclose(by_stay["sum"].to_numpy(), 1.0)
    assert all(ranks == [1, 2, 3, 4] for ranks in by_stay["rank"].to_list())
    assert all(names == [*FEATURES, STATIC] for names in by_stay["feature"].to_list())
    ordered = readings.sort("stay_id", "rank")["attention"].to_numpy().reshape(-1, 4)
    assert (np.diff(ordered, axis=1) <= 1e-12).all()


def test_what_was_planted_weighs_more_than_noise(made: tuple[Path, Table, pl.DataFrame]) -> None:
    mean = dict(made[2].group_by("feature").agg(pl.col("attention").mean()).iter_rows())
    assert mean["Platelets"] > 2 * mean["Noise"] and mean["Lactate"] > 2 * mean["Noise"]
    first = [names[0] for names in top_features(made[2], 1).values()]
    assert 0 < first.count("Lactate") < len(first), "patients differ"


def test_an_importance_is_the_mean_change_of_the_log_odds(made: tuple[Path, Table, pl.DataFrame]) -> None:
    _, table, readings = made
    with threadpool_limits(limits=1):
        wanted = _by_hand(table)
    found = readings.filter(pl.col("stay_id") == table.stay_ids[ROW])["attention"].to_numpy()
    assert found == pytest.approx(np.array(wanted) / np.sum(wanted))
    assert groups(table) == [[0], [1], [2], [3, 4]] and len(background(table, 1)) == 32


def _by_hand(table: Table) -> list[float]:
    """Importances of one stay, one change after the other."""
    model, _ = fit_boosting(table, 1)
    row, others = ROW, background(table, 1)
    plain, wanted = model.log_odds(table.values[[row]])[0], list[float]()
    for columns in ([0], [1], [2], [3, 4]):
        moved = []
        for other in others:
            changed = table.values[[row]].copy()
            changed[0, columns] = other[columns]
            moved.append(abs(model.log_odds(changed)[0] - plain))
        wanted.append(0.0 if np.isnan(table.values[row, columns]).all() else float(np.mean(moved)))
    return wanted


def test_the_size_of_the_portions_changes_nothing(made: tuple[Path, Table, pl.DataFrame],
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importance, "_AT_ONCE", 100)
    assert read_boosting(made[0], 1)[0].equals(made[2])


def test_what_a_stay_never_measured_has_no_importance(tmp_path: Path) -> None:
    write_cohort(tmp_path)
    filled = pl.read_parquet(tmp_path / "filled.parquet")
    gone = pl.when(pl.col("stay_id") == "s005").then(None).otherwise(pl.col("Lactate")).alias("Lactate")
    filled.with_columns(gone).write_parquet(tmp_path / "filled.parquet")
    weights = dict(read_boosting(tmp_path, 1)[0].filter(pl.col("stay_id") == "s005").select("feature", "attention")
                   .iter_rows())
    assert weights["Lactate"] == 0.0 and sum(weights.values()) == pytest.approx(1.0)


def test_boosting_names_nothing_that_moves_no_risk(made: tuple[Path, Table, pl.DataFrame]) -> None:
    table = made[1]
    found = np.ones((len(table.stay_ids), 4))
    found[0], found[1] = 0.0, [0.0, 2.0, 0.0, 1.0]
    readings = importance.readings_of(table, np.full(len(table.stay_ids), 0.5), found)
    named = top_features(readings, 4)
    assert named[table.stay_ids[0]] == [] and named[table.stay_ids[1]] == ["Platelets", STATIC]
    assert len(named) == len(table.stay_ids)
    moved = readings.filter(pl.col("stay_id").is_in(list(table.stay_ids[:2])))
    assert importance.effective_tokens(moved) == pytest.approx(np.exp(np.log(3) - 2 / 3 * np.log(2)))


def test_labels_beyond_training_change_no_reading(made: tuple[Path, Table, pl.DataFrame], tmp_path: Path) -> None:
    stays = write_cohort(tmp_path, 240)
    flipped = pl.when(pl.col("split") != "train").then(1 - pl.col("label")).otherwise(pl.col("label"))
    stays.with_columns(flipped.cast(pl.Int8).alias("label")).write_parquet(tmp_path / "stays.parquet")
    assert read_boosting(tmp_path, 1)[0].equals(made[2])


def test_another_seed_draws_another_background(made: tuple[Path, Table, pl.DataFrame]) -> None:
    table = made[1]
    assert not np.array_equal(background(table, 1), background(table, 2), equal_nan=True)
    assert set(map(str, background(table, 1))) <= set(map(str, table.of("train")[0]))


@pytest.mark.parametrize("rule", ["union", "vote", "rank"])
def test_boosting_is_heard_beside_another_expert(made: tuple[Path, Table, pl.DataFrame], rule: str) -> None:
    place, table, boosted = made
    shown = dict.fromkeys(table.stay_ids, (*FEATURES, STATIC))
    other = readings_of(pl.read_parquet(place / "stays.parquet"))
    together = expert_features([other, boosted], 2, shown, rule)  # type: ignore[arg-type]
    alone = expert_features([other], 2, shown, rule)  # type: ignore[arg-type]
    assert together.keys() == set(table.stay_ids)
    assert sum(together[stay] != alone[stay] for stay in together) > len(together) / 4


def test_trees_that_never_split_are_no_guide(tmp_path: Path) -> None:
    write_cohort(tmp_path)
    filled = pl.read_parquet(tmp_path / "filled.parquet")
    filled.with_columns(pl.lit(1.0).alias(name) for name in FEATURES).write_parquet(tmp_path / "filled.parquet")
    stays = pl.read_parquet(tmp_path / "stays.parquet")
    stays.with_columns(age=pl.lit(50.0), sex=pl.lit("male")).write_parquet(tmp_path / "stays.parquet")
    with pytest.raises(DataError, match="moves no risk by any of 5 features"):
        read_boosting(tmp_path, 1)


def test_a_folder_without_the_cohort_says_which_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="stays.parquet"):
        read_boosting(tmp_path, 1)


def test_on_generated_patients_it_finds_the_planted_features_better_than_chance(tmp_path: Path) -> None:
    section = Cohort.model_validate({"synthetic": {"stays": 400}})
    folder.write(cohort.prepare(cohort.read_source(section, 42, None), section, 42), tmp_path / "cohort")
    readings, note = read_boosting(tmp_path / "cohort", 42)
    truth = pl.read_parquet(tmp_path / "cohort" / "truth.parquet").filter(pl.col("effect") != 0)
    planted = {stay: set(names) for stay, names in truth.group_by("stay_id").agg(
        pl.col("feature").sort_by(pl.col("effect").abs(), descending=True).head(5)).iter_rows()}
    named = top_features(readings, 5)
    size = readings["feature"].n_unique()
    hits = np.mean([len(planted[stay] & set(named[stay])) / len(planted[stay]) for stay in planted])
    assert hits > 1.5 * 5 / size and "background stays" in note
