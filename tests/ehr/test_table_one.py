"""Table 1 says what the cohort holds, and its written form hides small cells and what would give them away."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from configs.schema import Cohort as Section
from contracts.errors import StorageError
from ehr.cohort import prepare, read_source
from ehr.distributions import standardised_difference
from ehr.small_cells import hidden
from ehr.sources.tjh_workbook import FILE
from ehr.table_one import GROUPS, LABELS, TEXT, markdown, suppressed, table_one, write
from support.clean_cohort import clean_cohort, of_stays, of_visits

DATA = Path(os.environ.get("EAG_RL_DATA", "no-such-folder"))
AGE, RATE = "age [years], median [Q1,Q3]", "Heart Rate [bpm], median [Q1,Q3]"


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    return table_one(clean_cohort())


def cell(table: pl.DataFrame, variable: str, column: str, level: str = "") -> str:
    found = table.filter((pl.col("variable") == variable) & (pl.col("level") == level))[column]
    assert found.len() == 1
    return str(found[0])


def test_there_is_a_row_for_each_variable_and_level(table: pl.DataFrame) -> None:
    cohort = clean_cohort()
    assert table.height == 1 + 2 + 2 + 3 + len(cohort.meta["features"])
    assert tuple(table.columns[:len(TEXT)]) == TEXT
    assert cell(table, "stays", "overall") == str(cohort.stays.height)


def test_numbers_are_medians_and_quartiles_of_the_stays(table: pl.DataFrame) -> None:
    groups = {"overall": pl.lit(True), "test": pl.col("split") == "test", "label 1": pl.col("label") == 1}
    for group, rows in groups.items():
        middle, low, high = np.quantile(clean_cohort().stays.filter(rows)["age"].to_numpy(), [0.5, 0.25, 0.75])
        assert cell(table, AGE, group) == f"{middle:.1f} [{low:.1f},{high:.1f}]"


def test_a_feature_stands_with_its_last_value_and_what_is_missing(table: pl.DataFrame) -> None:
    last = clean_cohort().filled.group_by("stay_id").agg(pl.col("Heart Rate").last())["Heart Rate"]
    assert cell(table, RATE, "missing") == str(last.null_count())
    middle = float(np.median(last.drop_nulls().to_numpy()))
    assert cell(table, RATE, "overall").startswith((f"{middle:.0f} [", f"{middle:.1f} ["))
    assert table.filter(pl.col("variable") == RATE)["n overall"].item() == last.drop_nulls().len()


def test_prevalence_and_sex_are_counts_with_percent(table: pl.DataFrame) -> None:
    stays = clean_cohort().stays
    dead = int(stays["label"].sum())
    assert cell(table, "label, n (%)", "overall", "1") == f"{dead} ({100 * dead / stays.height:.1f})"
    men = stays.filter((pl.col("sex") == "male") & (pl.col("split") == "train")).height
    assert cell(table, "sex, n (%)", "train", "male").startswith(f"{men} (")


def test_smd_is_the_difference_between_the_labels(table: pl.DataFrame) -> None:
    stays = clean_cohort().stays
    ages = [stays.filter(pl.col("label") == label)["age"].to_numpy() for label in (0, 1)]
    assert float(cell(table, AGE, "SMD")) == pytest.approx(standardised_difference(*ages), abs=0.01)


def test_a_feature_that_was_never_measured_has_an_empty_row() -> None:
    bare = table_one(of_visits(clean_cohort(), pl.lit(None, dtype=pl.Float64).alias("Heart Rate")))
    assert cell(bare, RATE, "missing") == str(clean_cohort().stays.height)
    assert [cell(bare, RATE, group) for group in (*GROUPS, "SMD")] == [""] * 7


def test_a_group_without_values_has_an_empty_cell() -> None:
    cohort = clean_cohort()
    dead = pl.col("stay_id").is_in(cohort.stays.filter(pl.col("label") == 1)["stay_id"].implode())
    bare = table_one(of_visits(cohort, pl.when(~dead).then(pl.col("Heart Rate")).alias("Heart Rate")))
    assert cell(bare, RATE, "label 1") == cell(bare, RATE, "SMD") == ""
    assert cell(bare, RATE, "label 0") != ""


@pytest.mark.slow
def test_small_cells_and_those_that_give_them_away_are_hidden() -> None:
    few = pl.int_range(pl.len()) < 3
    cohort = of_stays(clean_cohort(), pl.when(few).then(pl.lit("female")).otherwise(pl.lit("male")).alias("sex"))
    written = suppressed(table_one(cohort), 5)
    assert cell(written, "sex, n (%)", "overall", "female") == "<5"
    assert cell(written, "sex, n (%)", "overall", "male") == "hidden"
    assert cell(written, "sex, n (%)", "SMD", "female") == ""
    assert cell(suppressed(table_one(cohort), 1), "sex, n (%)", "overall", "female").startswith("3 (")


@pytest.mark.slow
def test_medians_and_missing_counts_of_few_stays_are_hidden() -> None:
    cohort = clean_cohort()
    four = cohort.stays.filter((pl.col("split") == "test") & (pl.col("label") == 1))["stay_id"].head(4)
    bent = of_visits(cohort, pl.when(pl.col("stay_id").is_in(four.implode())).then(pl.lit(99.0)).alias("Heart Rate"))
    written = suppressed(table_one(bent), 5)
    assert cell(written, RATE, "overall") == cell(written, RATE, "test") == cell(written, RATE, "label 1") == "<5"
    assert cell(written, RATE, "missing") == "hidden"
    others = ~pl.col("stay_id").is_in(four.implode())
    once = of_visits(cohort, pl.when(others).then(pl.col("Heart Rate").fill_null(80.0)).alias("Heart Rate"))
    assert cell(suppressed(table_one(once), 5), RATE, "missing") == "<5"


def test_a_hidden_group_hides_its_rows() -> None:
    few = pl.int_range(pl.len()) < 3
    cohort = of_stays(clean_cohort(), pl.when(few).then(1).otherwise(0).cast(pl.Int8).alias("label"))
    written = suppressed(table_one(cohort), 5)
    assert [cell(written, "stays", group) for group in LABELS] == ["hidden", "<5"]
    assert cell(written, "sex, n (%)", "label 0", "male") == "hidden"
    assert cell(written, "stays", "overall") == str(cohort.stays.height)


def test_a_hidden_part_of_a_sum_takes_the_smallest_other_along() -> None:
    counts = np.array([[20, 3, 7, 10]])
    mask = hidden(counts, 5, [[(0, column) for column in range(4)]])
    assert mask.tolist() == [[False, True, True, False]]
    assert not hidden(np.array([[20, 0, 20]]), 5, [[(0, column) for column in range(3)]]).any()


def test_both_files_hold_the_hidden_table(table: pl.DataFrame, tmp_path: Path) -> None:
    text, comma = write(table, tmp_path, 5)
    lines = text.read_text(encoding="utf-8").splitlines()
    assert lines[0] == f"| {' | '.join(TEXT)} |" and lines[2].startswith("| stays |")
    assert "fewer than 5 stays" in lines[-1]
    again = pl.read_csv(comma, infer_schema=False).fill_null("")
    assert again.equals(suppressed(table, 5))
    assert all(f"| {row[0]} |" in text.read_text(encoding="utf-8") for row in again.iter_rows())
    with pytest.raises(StorageError, match="cannot write Table 1"):
        write(table, tmp_path / "missing", 5)


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.skipif(not (DATA / "tjh" / FILE).is_file(), reason="EAG_RL_DATA names no folder with tjh/")
def test_table_one_of_tjh_has_the_counts_of_the_paper() -> None:
    section = Section(source="tjh", split="paper")
    table = table_one(prepare(read_source(section, 42, DATA), section, 42))
    assert [cell(table, "stays", group) for group in GROUPS] == ["361", "140", "21", "200", "195", "166"]
    assert cell(table, "label, n (%)", "overall", "1") == "166 (46.0)"
    assert "| sex, n (%) | female |  | 149 (41.3) |" in markdown(table, 5)
