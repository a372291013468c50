"""The cohort from section to folder and back, with what is refused on the way."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from configs.schema import Cohort as Section
from configs.schema import Synthetic
from contracts.errors import ArtifactError, ConfigError, ContractError, DataError, StorageError
from contracts.features import catalogue
from contracts.frames import STAYS, check_visits
from ehr.cohort import Cohort, counts, prepare, read, read_source, write
from support.tjh_sheet import patients, write_sheet

SECTION = Section(synthetic=Synthetic(stays=60))


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return prepare(read_source(SECTION, 1, None), SECTION, 1)


def test_frames_keep_their_contracts(cohort: Cohort) -> None:
    names = catalogue("mimic_iv").names
    STAYS.check(cohort.stays)
    assert check_visits(cohort.visits, names).shape == check_visits(cohort.filled, names).shape
    assert list(cohort.scaling) == [*names, "age"]
    assert set(cohort.visits["stay_id"]) == set(cohort.stays["stay_id"])


def test_filled_visits_repeat_what_was_measured(cohort: Cohort) -> None:
    for name in catalogue("mimic_iv").names:
        seen = cohort.visits[name].is_not_null()
        assert cohort.visits[name].filter(seen).equals(cohort.filled[name].filter(seen))
        assert cohort.filled[name].null_count() <= cohort.visits[name].null_count()


def test_a_cohort_reads_back_as_it_was_written(cohort: Cohort, tmp_path: Path) -> None:
    again = read(write(cohort, tmp_path))
    for name in ("stays", "visits", "filled", "first", "truth"):
        assert getattr(again, name).equals(getattr(cohort, name))
    assert (again.scaling, again.attrition, again.meta) == (cohort.scaling, cohort.attrition, cohort.meta)
    assert counts(again) == counts(cohort)


def test_the_folder_holds_the_files_that_later_stages_read(cohort: Cohort, tmp_path: Path) -> None:
    write(cohort, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "attrition.json", "filled.parquet", "first.parquet", "meta.json", "scaling.json", "stays.parquet",
        "truth.parquet", "visits.parquet"]
    scaling = json.loads((tmp_path / "scaling.json").read_text())
    assert set(scaling["age"]) == set(scaling["Heart Rate"]) == {"mean", "sd", "low", "high"}
    meta = json.loads((tmp_path / "meta.json").read_text())
    assert (meta["catalogue"], meta["outcome"], meta["split"]) == ("mimic_iv", "mortality", "stratified")


def test_every_stay_has_a_first_day_that_is_no_summary(cohort: Cohort) -> None:
    summed = cohort.visits.filter(pl.col("is_summary"))
    assert summed.height and cohort.first_days["stay_id"].equals(cohort.stays["stay_id"])
    assert not cohort.first_days["is_summary"].any()
    short = cohort.first_days.join(summed, on="stay_id", how="anti", maintain_order="left")
    assert short.equals(cohort.filled.filter((pl.col("visit") == 0) & ~pl.col("is_summary")))


def test_a_summary_is_refused_as_a_first_day(cohort: Cohort, tmp_path: Path) -> None:
    write(replace(cohort, first=cohort.filled.filter(pl.col("visit") == 0)), tmp_path)
    with pytest.raises(ContractError, match=r"\d+ of 60 rows of first are later days or summaries"):
        read(tmp_path)


def test_a_folder_of_an_earlier_version_is_read_until_its_first_days_are_needed(cohort: Cohort, tmp_path: Path) -> None:
    write(cohort, tmp_path)
    again = read(write(replace(cohort, first=None), tmp_path))
    assert again.filled.equals(cohort.filled)
    with pytest.raises(ArtifactError, match="no first days"):
        _ = again.first_days


def test_the_same_study_writes_the_same_bytes(cohort: Cohort, tmp_path: Path) -> None:
    again = prepare(read_source(SECTION, 1, None), SECTION, 1)
    first, second = write(cohort, tmp_path / "first"), write(again, tmp_path / "second")
    assert all((second / path.name).read_bytes() == path.read_bytes() for path in first.iterdir())


def test_counts_add_up(cohort: Cohort) -> None:
    result = counts(cohort)
    for key, total in result["total"].items():
        assert sum(entry[key] for entry in result["splits"].values()) == total
    assert result["total"]["patients"] == 60
    assert result["total"]["positive"] + result["total"]["negative"] == 60
    assert result["window"]["total"] == cohort.visits.height < result["total"]["visits"]
    merged = result["attrition"][-1]
    assert merged["kept"] == cohort.visits.filter(~pl.col("is_summary")).height
    assert merged["kept"] + merged["dropped"] == result["total"]["visits"]


def test_short_stays_are_dropped_and_counted() -> None:
    section = Section(synthetic=Synthetic(stays=300), min_visits=3)
    cohort = prepare(read_source(section, 1, None), section, 1)
    step = next(step for step in cohort.attrition if "fewer than 3" in step.rule)
    assert cohort.stays["days"].min() == 3 and step.dropped > 0
    assert step.kept == cohort.stays.height == 300 - step.dropped
    assert cohort.truth is not None and set(cohort.truth["stay_id"]) <= set(cohort.stays["stay_id"])


def test_no_stay_long_enough_is_an_error() -> None:
    with pytest.raises(DataError, match="none of 60 stays has 40 daily records"):
        prepare(read_source(SECTION, 1, None), SECTION.model_copy(update={"min_visits": 40}), 1)


def test_the_paper_split_of_another_source_is_an_error() -> None:
    with pytest.raises(ConfigError, match="cohort.split=paper"):
        prepare(read_source(SECTION, 1, None), SECTION.model_copy(update={"split": "paper"}), 1)


def test_a_split_seed_changes_the_split_and_nothing_else(cohort: Cohort) -> None:
    section = SECTION.model_copy(update={"split_seed": 7})
    other = prepare(read_source(section, 1, None), section, 1)
    assert not other.stays["split"].equals(cohort.stays["split"])
    assert other.visits.equals(cohort.visits)


def test_a_tjh_sheet_becomes_a_cohort_with_its_file_named(tmp_path: Path) -> None:
    path = write_sheet(tmp_path / "sheet.xlsx", patients(40))
    section = Section(source="tjh")
    cohort = prepare(read_source(section, 1, path), section, 1)
    assert list(cohort.meta["files"]) == ["sheet.xlsx"] and cohort.truth is None
    assert counts(cohort)["total"] == {"patients": 40, "visits": 80, "positive": 20, "negative": 20,
                                       "visits_positive": 40, "visits_negative": 40}
    assert "truth.parquet" not in [file.name for file in write(cohort, tmp_path / "out").iterdir()]


def test_no_patient_row_shows_in_the_text_of_a_cohort(cohort: Cohort) -> None:
    assert cohort.stays["stay_id"][0] not in repr(cohort)
    assert cohort.stays["stay_id"][0] not in repr(read_source(SECTION, 1, None))


def test_an_unfinished_folder_is_refused(cohort: Cohort, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"meta\.json does not exist"):
        read(tmp_path)
    write(cohort, tmp_path)
    (tmp_path / "filled.parquet").unlink()
    with pytest.raises(ArtifactError, match=r"filled\.parquet does not exist"):
        read(tmp_path)


def test_damaged_files_are_refused(cohort: Cohort, tmp_path: Path) -> None:
    write(cohort, tmp_path)
    content = (tmp_path / "visits.parquet").read_bytes()
    (tmp_path / "visits.parquet").write_bytes(content[:200])
    with pytest.raises(ArtifactError, match=r"visits\.parquet cannot be read"):
        read(tmp_path)
    (tmp_path / "visits.parquet").write_bytes(content)
    for text, words in (("{", "is no JSON"), ("[]", "holds a list")):
        (tmp_path / "scaling.json").write_text(text)
        with pytest.raises(ArtifactError, match=words):
            read(tmp_path)


def test_attrition_of_another_form_is_refused(cohort: Cohort, tmp_path: Path) -> None:
    write(cohort, tmp_path)
    (tmp_path / "attrition.json").write_text('{"steps": [{"rule": "x"}]}')
    with pytest.raises(ContractError, match="attrition"):
        read(tmp_path)


def test_a_folder_that_cannot_be_written_is_a_storage_error(cohort: Cohort, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write the cohort"):
        write(cohort, tmp_path / "file")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("name", ["stays.parquet", "scaling.json"])
def test_a_full_disk_is_a_storage_error_and_leaves_no_finished_folder(cohort: Cohort, tmp_path: Path,
                                                                      name: str) -> None:
    (tmp_path / name).symlink_to("/dev/full")
    with pytest.raises(StorageError, match="No space left"):
        write(cohort, tmp_path)
    assert not (tmp_path / "meta.json").exists()


def test_writing_again_leaves_no_truth_of_an_older_cohort(cohort: Cohort, tmp_path: Path) -> None:
    write(cohort, tmp_path)
    assert read(write(replace(cohort, truth=None), tmp_path)).truth is None


def test_writing_again_leaves_no_targets_of_an_older_cohort(cohort: Cohort, tmp_path: Path) -> None:
    targets = cohort.stays.select("stay_id", pl.lit("remaining_days").alias("name"), pl.lit(1.5).alias("value"))
    again = read(write(replace(cohort, targets=targets), tmp_path))
    assert again.targets is not None and again.targets.equals(targets)
    assert read(write(cohort, tmp_path)).targets is None


def test_targets_that_break_their_contract_are_refused(cohort: Cohort, tmp_path: Path) -> None:
    twice = cohort.stays.select("stay_id", pl.lit("remaining_days").alias("name"), pl.lit(1.5).alias("value"))
    write(replace(cohort, targets=pl.concat([twice, twice])), tmp_path)
    with pytest.raises(ContractError, match="targets repeats 60 keys"):
        read(tmp_path)
