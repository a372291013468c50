"""The real TJH file: Table 3 of the paper, every count of the data README, and that nothing leaks the label."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pytest

from configs.schema import Cohort as Section
from contracts.frames import VISITS
from ehr.cohort import Cohort, counts, prepare, read, read_source, write
from ehr.sources.source import Source
from ehr.sources.tjh_workbook import FILE

DATA = Path(os.environ.get("EAG_RL_DATA", "no-such-folder"))
pytestmark = [pytest.mark.real_data,
              pytest.mark.skipif(not (DATA / "tjh" / FILE).is_file(), reason="EAG_RL_DATA names no folder with tjh/")]


@pytest.fixture(scope="module")
def source() -> Source:
    return read_source(Section(source="tjh", split="paper"), 42, DATA)


@pytest.fixture(scope="module")
def cohort(source: Source) -> Cohort:
    return prepare(source, Section(source="tjh", split="paper"), 42)


def found(source: Source, words: str, unit: str) -> tuple[int, int, int]:
    steps = [step for step in source.attrition if words in step.rule and step.unit == unit]
    assert len(steps) == 1
    return steps[0].found, steps[0].dropped, steps[0].kept


def test_the_paper_split_gives_every_count_of_table_3(cohort: Cohort) -> None:
    names = ("patients", "visits", "positive", "negative", "visits_positive", "visits_negative")
    result = counts(cohort)
    table = {name: tuple(entry[column] for column in names) for name, entry in result["splits"].items()}
    assert table == {"train": (140, 641, 65, 75, 246, 395), "validation": (21, 96, 10, 11, 42, 54),
                     "test": (200, 967, 91, 109, 366, 601)}
    assert tuple(result["total"][column] for column in names) == (361, 1704, 166, 195, 654, 1050)
    assert all(set(entry) == set(names) for entry in (*result["splits"].values(), result["total"]))


def test_the_window_keeps_seven_days_and_one_summary(cohort: Cohort) -> None:
    assert counts(cohort)["window"] == {"max_days": 7, "train": 627, "validation": 96, "test": 941, "total": 1664}
    assert cohort.visits.filter(pl.col("is_summary")).height == 52
    assert cohort.visits.group_by("stay_id").len()["len"].max() == 8


def test_the_first_days_of_long_stays_at_tjh_are_not_their_summaries(cohort: Cohort) -> None:
    long = cohort.visits.filter(pl.col("is_summary")).join(cohort.stays, on="stay_id")
    assert long.filter(pl.col("split") == "test").height == 32
    first = cohort.first_days.join(long, on="stay_id", how="semi")
    assert first.height == 52 and set(first["day"]) == {0.0} and not first["is_summary"].any()
    names = [column for column in first.columns if column not in VISITS.dtypes]
    alike = long.join(first, on=["stay_id", *names], how="semi", nulls_equal=True)
    # A stay of eight days has one day merged, its first; of most longer ones the summary looked ahead.
    assert long.filter(pl.col("days") == 8).join(alike, on="stay_id", how="anti").is_empty() and alike.height == 31


@pytest.mark.parametrize(("words", "unit", "numbers"), [
    ("patients in the file", "patients", (375, 0, 375)),
    ("ends in a blank", "columns", (3, 0, 81)),
    ("merged with the one above", "rows", (5745, 0, 6120)),
    ("lab without information", "columns", (1, 1, 73)),
    ("501 of them -1", "values", (501, 501, 0)),
    ("row without RE_DATE: dropped", "rows", (14, 14, 6106)),
    ("lab values in rows without RE_DATE", "values", (0, 0, 0)),
    ("without any dated row", "patients", (14, 14, 361)),
    ("before the admission", "rows", (0, 0, 6106)),
    ("after the discharge (rows of 34 patients)", "rows", (71, 0, 6106)),
    ("after the discharge", "days", (27, 0, 1704)),
    ("after the discharge", "patients", (2, 0, 361)),
    ("whose only lab was", "days", (364, 0, 1704)),
    ("code for missing", "values", (4, 4, 55_226)),
    ("urine sediment", "values", (340, 340, 1914)),
    ("urine in a blood count", "values", (4, 4, 1910)),
    ("at most 6.9", "values", (244, 244, 140)),
    ("test-strip step", "values", (32, 32, 108)),
    ("in g/dL", "values", (18, 0, 975)),
])
def test_each_oddity_of_the_file_is_counted(source: Source, words: str, unit: str,
                                            numbers: tuple[int, int, int]) -> None:
    assert found(source, words, unit) == numbers


def test_dropping_records_after_the_discharge_leaves_the_readme_counts_and_the_split(cohort: Cohort) -> None:
    section = Section(source="tjh", split="paper", drop_after_discharge=True)
    inside = prepare(read_source(section, 42, DATA), section, 42)
    assert (counts(inside)["total"]["patients"], counts(inside)["total"]["visits"]) == (359, 1677)
    both = cohort.stays.join(inside.stays, on="stay_id")
    assert both.height == 359 and both["split"].equals(both["split_right"], check_names=False)


def test_blood_values_are_plausible_after_cleaning(cohort: Cohort) -> None:
    lowest, highest = cohort.visits.min().row(0, named=True), cohort.visits.max().row(0, named=True)
    assert lowest["hemoglobin"] >= 40 and highest["hemoglobin"] <= 178
    assert lowest["PH value"] > 6.9 and highest["Red blood cell count"] < 8
    assert lowest["Platelet count"] >= 0 and highest["White blood cell count"] < 100


@pytest.mark.parametrize("frame", ["stays", "visits"])
def test_neither_order_nor_identifier_tells_the_label(cohort: Cohort, frame: str) -> None:
    order = getattr(cohort, frame).select("stay_id").unique(maintain_order=True)
    stays = order.join(cohort.stays, on="stay_id", maintain_order="left")
    ranks = stays.with_row_index("place").group_by("label").agg(pl.col("place").mean()).sort("label")["place"]
    # In the file the mean places of survivors and deaths are 180 apart of 361; shuffled, sd of the difference is 11.
    assert abs(ranks[1] - ranks[0]) < 40
    assert not cohort.stays["stay_id"].str.contains(r"^\d{1,3}$").any()


def test_the_stratified_split_keeps_the_share_of_deaths() -> None:
    section = Section(source="tjh", split="stratified")
    splits = counts(prepare(read_source(section, 42, DATA), section, 42))["splits"]
    assert splits["test"]["patients"] == 108
    assert all(abs(entry["positive"] / entry["patients"] - 166 / 361) < 0.03 for entry in splits.values())


def test_two_runs_write_the_same_bytes(cohort: Cohort, tmp_path: Path) -> None:
    section = Section(source="tjh", split="paper")
    again = prepare(read_source(section, 42, DATA / "tjh" / FILE), section, 42)
    first, second = write(cohort, tmp_path / "first"), write(again, tmp_path / "second")
    names = sorted(path.name for path in first.iterdir())
    assert names == sorted(path.name for path in second.iterdir()) and "truth.parquet" not in names
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)
    assert read(first).meta["files"] == {FILE: again.meta["files"][FILE]}
