"""Two versions of a cohort: what came, went, changed and moved, and the files that say so."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from contracts.errors import DataError, StorageError
from ehr.cohort import Cohort
from ehr.compare import SHIFTED, as_dict, compare, shifted
from ehr.comparison_files import FILES, by_size, markdown, write
from support.clean_cohort import clean_cohort, of_meta, of_stays, of_visits

RATE = "Heart Rate"


def without(cohort: Cohort, count: int) -> Cohort:
    """Without its first stays."""
    kept = cohort.stays.slice(count)
    return replace(cohort, stays=kept, visits=cohort.visits.join(kept, on="stay_id", how="semi"),
                   filled=cohort.filled.join(kept, on="stay_id", how="semi"))


def first(count: int) -> pl.Expr:
    """Rows of the first stays."""
    return pl.col("stay_id").is_in(clean_cohort().stays["stay_id"].head(count).implode())


def row(shifts: pl.DataFrame, name: str) -> dict[str, float]:
    return shifts.row(by_predicate=pl.col("name") == name, named=True)


def test_a_cohort_does_not_differ_from_itself() -> None:
    found = compare(clean_cohort(), clean_cohort())
    count = clean_cohort().stays.height
    assert found.counts == {"old": count, "new": count, "common": count, "added": 0, "removed": 0, "changed": 0,
                            "split_changed": 0, "label_changed": 0}
    assert found.findings == () and found.settings == {} and found.stays.height == 0
    numbers = found.shifts.select(pl.selectors.float().abs().max())
    assert numbers.select("smd_last", "smd_all", "ks_last", "ks_all", "missing_difference").row(0) == (0, 0, 0, 0, 0)


def test_added_and_removed_stays_are_counted_and_named() -> None:
    cohort = clean_cohort()
    more, less = compare(without(cohort, 4), cohort), compare(cohort, without(cohort, 4))
    assert (more.counts["added"], more.counts["removed"]) == (4, 0)
    assert (less.counts["added"], less.counts["removed"]) == (0, 4)
    assert set(less.stays["stay_id"]) == set(cohort.stays["stay_id"].head(4))
    assert set(less.stays["change"]) == {"removed"}


@pytest.mark.parametrize(("column", "what"), [
    ((1 - pl.col("label")).cast(pl.Int8).alias("label"), "label"), ((pl.col("age") + 1).alias("age"), "age"),
    (pl.lit("other").alias("sex"), "sex"),
    ((pl.col("discharged_at") + timedelta(hours=1)).alias("discharged_at"), "times"),
    ((pl.col("admitted_at") - timedelta(hours=1)).alias("admitted_at"), "times")])
def test_a_changed_fact_makes_a_changed_stay(column: pl.Expr, what: str) -> None:
    old = clean_cohort()
    name = column.meta.output_name()
    found = compare(old, of_stays(old, pl.when(first(3)).then(column).otherwise(pl.col(name)).alias(name)))
    assert found.counts["changed"] == 3 and set(found.stays["what"]) == {what}


def test_a_changed_a_new_and_a_lost_value_make_a_changed_stay() -> None:
    old, here = clean_cohort(), first(1) & (pl.col("visit") == 0)
    for value in (pl.lit(77.25), pl.lit(None, dtype=pl.Float64)):
        new = of_visits(old, pl.when(here).then(value).otherwise(pl.col(RATE)).alias(RATE))
        same = old.visits.filter(here)[RATE].eq_missing(new.visits.filter(here)[RATE]).all()
        assert compare(old, new).counts["changed"] == (0 if same else 1)
    shorter = replace(old, visits=old.visits.filter(~here))
    for found in (compare(old, shorter), compare(shorter, old)):
        assert found.stays.rows() == [(old.stays["stay_id"][0], "changed", "visits")]


def test_several_changes_of_one_stay_stand_together() -> None:
    old = clean_cohort()
    new = of_stays(of_visits(old, pl.when(first(1)).then(pl.lit(70.5)).otherwise(pl.col(RATE)).alias(RATE)),
                   pl.when(first(1)).then(pl.col("age") + 1).otherwise(pl.col("age")).alias("age"))
    assert compare(old, new).stays["what"].to_list() == ["visits, age"]


def test_changed_labels_are_counted_by_their_way() -> None:
    old = clean_cohort()
    new = of_stays(old, pl.when(first(30)).then(1).otherwise(pl.col("label")).cast(pl.Int8).alias("label"))
    found = compare(old, new)
    survivors = old.stays.head(30).filter(pl.col("label") == 0).height
    assert found.labels == {"0 to 1": survivors, "1 to 0": 0}
    assert f"labels changed: {survivors} from 0 to 1" in [finding.value for finding in found.findings]


def test_a_changed_split_is_an_error() -> None:
    old = clean_cohort()
    moved = old.stays.filter(pl.col("split") == "train")["patient_id"].head(1)
    there = pl.col("patient_id").is_in(moved.implode())
    new = of_stays(old, pl.when(there).then(pl.lit("test")).otherwise(pl.col("split")).alias("split"))
    errors = [finding for finding in compare(old, new).findings if finding.level == "error"]
    stays = old.stays.filter(there).height
    assert [finding.value for finding in errors] == [f"the split of {stays} stays and 1 patients changed"]
    renamed = replace(new, stays=new.stays.with_columns(pl.concat_str(pl.lit("x"), "stay_id").alias("stay_id")))
    assert "0 stays and 1 patients" in compare(old, renamed).findings[0].value


def test_a_shift_shows_in_the_difference_and_in_the_missingness() -> None:
    old = clean_cohort()
    up = compare(old, of_visits(old, (pl.col(RATE) + 40).alias(RATE)))
    assert row(up.shifts, RATE)["smd_last"] > 0.5 and row(up.shifts, RATE)["ks_all"] > 0.3
    assert shifted(up.shifts)["name"].to_list() == [RATE]
    assert [finding.value for finding in up.findings] == [f"shifted: {RATE}"]
    gone = compare(old, of_visits(old, pl.lit(None, dtype=pl.Float64).alias(RATE)))
    assert row(gone.shifts, RATE)["missing_new"] == 1.0 and row(gone.shifts, RATE)["smd_last"] is None
    assert row(gone.shifts, RATE)["missing_difference"] == pytest.approx(1 - row(gone.shifts, RATE)["missing_old"])


def test_the_difference_is_that_of_the_stays() -> None:
    old = clean_cohort()
    new = of_stays(old, (pl.col("age") + 10).alias("age"))
    sd = math.sqrt(float(old.stays["age"].var(ddof=0) or 0.0))  # type: ignore[arg-type]
    assert row(compare(old, new).shifts, "age")["smd_last"] == pytest.approx(10 / sd)
    assert row(compare(old, new).shifts, "age")["missing_old"] is None


def test_differing_settings_and_files_are_named() -> None:
    old = clean_cohort()
    new = of_meta(old, version="2", files={"labs.csv": "b" * 64}, max_days=9)
    assert compare(of_meta(old, files={"labs.csv": "a" * 64}), new).settings == {
        "files.labs.csv": ["a" * 64, "b" * 64], "max_days": [7, 9], "version": [None, "2"]}


def test_cohorts_of_two_catalogues_are_refused() -> None:
    with pytest.raises(DataError, match="cohorts of the catalogues mimic_iv and tjh"):
        compare(clean_cohort(), of_meta(clean_cohort(), catalogue="tjh"))


def test_the_files_say_what_was_found_and_are_the_same_each_time(tmp_path: Path) -> None:
    old = clean_cohort()
    new = of_visits(without(old, 2), (pl.col(RATE) * 0 + 5).alias(RATE))
    found = compare(of_visits(old, (pl.col(RATE) * 0 + 4).alias(RATE)), new)
    first_time, again = write(found, tmp_path / "a"), write(found, tmp_path / "b")
    assert [path.name for path in first_time] == list(FILES)
    assert all(one.read_bytes() == other.read_bytes() for one, other in zip(first_time, again, strict=True))
    values = json.loads(first_time[0].read_text(encoding="utf-8"))
    assert values == json.loads(json.dumps(as_dict(found)))
    assert next(entry for entry in values["shifts"] if entry["name"] == RATE)["smd_last"] == "inf"
    assert pl.read_csv(first_time[2]).fill_null("").equals(found.stays)
    assert first_time[4].read_bytes().startswith(b"\x89PNG")


def test_the_plot_is_sorted_and_shows_the_threshold(tmp_path: Path) -> None:
    old = clean_cohort()
    found = compare(old, of_visits(old, (pl.col(RATE) + 40).alias(RATE)))
    assert by_size(found.shifts)["name"][0] == RATE
    drawing = write(found, tmp_path)[3].read_text(encoding="utf-8")
    names = found.shifts["name"].to_list()
    assert all(f">{name}<" in drawing for name in names) and f"threshold {SHIFTED}" in drawing
    assert min(names, key=lambda name: drawing.index(f">{name}<")) == RATE


def test_markdown_and_json_hold_no_identifier(tmp_path: Path) -> None:
    found = compare(clean_cohort(), without(clean_cohort(), 4))
    text = markdown(found) + json.dumps(as_dict(found)) + repr(found)
    assert [one for one in clean_cohort().stays["stay_id"] if one in text] == []
    assert "| removed | 4 |" in text
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write the comparison"):
        write(found, tmp_path / "file")
