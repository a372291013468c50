"""The cohort folder as tensors."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
import torch

from contracts.cohort_files import FIRST
from contracts.errors import ArtifactError, ContractError, DataError
from models.expert.batches import read_stays
from support.expert_cohort import NAMES, write_cohort


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_cohort(tmp_path / "cohort", stays=60)


def _with_scaling(folder: Path, name: str, **entry: float) -> None:
    path = folder / "scaling.json"
    scaling = json.loads(path.read_text())
    scaling[name] = entry
    path.write_text(json.dumps(scaling))


def test_a_value_is_clipped_and_standardised_with_the_training_statistics(folder: Path) -> None:
    _with_scaling(folder, "Glucose", mean=0.5, sd=2.0, low=-0.3, high=0.4)
    stays, filled = read_stays(folder), pl.read_parquet(folder / "filled.parquet")
    column = NAMES.index("Glucose")
    for row in (0, 7, 31):
        raw = filled.filter(pl.col("stay_id") == stays.stay_ids[row]).sort("visit")["Glucose"].to_list()
        for visit, value in enumerate(raw):
            expected = 0.0 if value is None else (min(max(value, -0.3), 0.4) - 0.5) / 2.0
            assert stays.batch.values[row, visit, column].item() == pytest.approx(expected, abs=1e-6)
            assert stays.batch.mask[row, visit, column].item() == (value is not None)


def test_padding_is_marked_and_days_are_those_of_the_visits(folder: Path) -> None:
    stays, filled = read_stays(folder), pl.read_parquet(folder / "filled.parquet")
    for row, stay in enumerate(stays.stay_ids):
        days = filled.filter(pl.col("stay_id") == stay).sort("visit")["day"].to_list()
        assert int(stays.batch.last[row]) == len(days) - 1
        assert stays.batch.days[row, : len(days)].tolist() == days
        assert not stays.batch.steps[row, len(days):].any() and not stays.batch.mask[row, len(days):].any()


def test_on_the_first_day_a_stay_has_one_visit_and_is_otherwise_the_same(folder: Path) -> None:
    stays, first = read_stays(folder), read_stays(folder, FIRST)
    assert first.batch.steps.shape == (60, 1) and first.batch.steps.all() and not first.batch.days.any()
    assert (first.stay_ids, first.splits) == (stays.stay_ids, stays.splits)
    for name in ("values", "mask"):
        torch.testing.assert_close(getattr(first.batch, name)[:, 0], getattr(stays.batch, name)[:, 0])
    for name in ("static", "labels"):
        torch.testing.assert_close(getattr(first.batch, name), getattr(stays.batch, name))
    (folder / "first.parquet").unlink()
    with pytest.raises(ArtifactError, match=r"first\.parquet does not exist"):
        read_stays(folder, FIRST)


def test_age_and_sex_are_the_static_data(folder: Path) -> None:
    stays, frame = read_stays(folder), pl.read_parquet(folder / "stays.parquet").sort("stay_id")
    expected = (frame["age"].to_numpy() - 55.0) / 20.0
    torch.testing.assert_close(stays.batch.static[:, 0], torch.tensor(expected, dtype=torch.float32))
    assert stays.batch.static[:, 1].tolist() == [1.0 if sex == "male" else -1.0 for sex in frame["sex"]]


def test_the_order_of_the_rows_in_the_files_does_not_matter(folder: Path) -> None:
    before = read_stays(folder)
    for name in ("stays", "filled"):
        pl.read_parquet(folder / f"{name}.parquet").sample(fraction=1.0, shuffle=True, seed=3).write_parquet(
            folder / f"{name}.parquet")
    after = read_stays(folder)
    assert after.stay_ids == before.stay_ids
    torch.testing.assert_close(after.batch.values, before.batch.values)


def test_selected_stays_are_cut_to_the_longest_of_them(folder: Path) -> None:
    batch = read_stays(folder).batch
    short = torch.nonzero(batch.last == 0).flatten()[:2]
    assert batch.select(short).values.shape == (2, 1, len(NAMES))


def test_a_stay_without_visits_is_refused(folder: Path) -> None:
    filled = pl.read_parquet(folder / "filled.parquet")
    filled.filter(pl.col("stay_id") != "s0003").write_parquet(folder / "filled.parquet")
    with pytest.raises(ContractError, match="1 stays unvisited"):
        read_stays(folder)


def test_a_split_with_labels_all_alike_is_refused(tmp_path: Path) -> None:
    stays = read_stays(write_cohort(tmp_path / "alike", stays=30, label_of_all=1))
    with pytest.raises(DataError, match=r"split 'train' has \d+ stays with labels \[1\]"):
        stays.split("train")


def test_a_scaling_without_spread_is_refused(folder: Path) -> None:
    _with_scaling(folder, "pH", mean=7.4, sd=0.0, low=7.4, high=7.4)
    with pytest.raises(ContractError, match="sd 0.0 for 'pH'"):
        read_stays(folder)


def test_a_missing_scaling_is_refused(folder: Path) -> None:
    _with_scaling(folder, "age", mean=55.0)
    with pytest.raises(ContractError, match="age"):
        read_stays(folder)


def test_a_folder_that_is_no_cohort_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="does not exist"):
        read_stays(tmp_path)
