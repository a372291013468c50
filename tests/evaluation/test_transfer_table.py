"""The transfer experiment's table, picture and page, from made-up verdicts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from xml.etree import ElementTree

import polars as pl
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from contracts.errors import DataError
from evaluation import transfer, transfer_page
from evaluation.baselines import EXPERT, judge_expert
from evaluation.transfer import Line, headline, results
from support.judged import readings_of, stays_of, verdicts_of

STAYS = stays_of(180)
NAMES = ("here", "there")
UNTRAINED = Line("decomposition", "nothing", "shared words")
MOVED, OWN = Line("stage1+2", "source", "shared words"), Line("stage1+2", "target", "own words")
EXPERTS = Line(EXPERT, "source", "shared features"), Line(EXPERT, "target", "all features")


def verdicts() -> dict[Line, pl.DataFrame]:
    """An untrained arm, one that lost something on the way, the same one at home, and an expert on both."""
    return {UNTRAINED: verdicts_of("x", STAYS, 0.3, 1), MOVED: verdicts_of("x", STAYS, 1.0, 2),
            OWN: verdicts_of("x", STAYS, 2.5, 3), EXPERTS[0]: judge_expert(readings_of(STAYS, 1), STAYS),
            EXPERTS[1]: judge_expert(readings_of(STAYS, 2), STAYS)}


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    return results(verdicts(), NAMES, bootstraps=60, seed=1)


def row_of(table: pl.DataFrame, line: Line, reading: str) -> Mapping[str, object]:
    return table.filter(arm=line.arm, trained=line.trained, reads=line.reads, reading=reading).row(0, named=True)


def page_of(table: pl.DataFrame, **other: object) -> transfer_page.Page:
    page = transfer_page.Page(
        source="here", target="there", created="2026-01-01", outcome="mortality", table=table,
        features=[{"source": "Glucose", "target": "glucose", "source_unit": "mg/dL", "target_unit": "mmol/L",
                   "factor": 18.0156, "measured_source": 0.98, "measured_target": 0.5}],
        known=(17, 73), written_by="here", sites=(["Split", "Stays"], [["here, train", "60"]]), without=["stage1"],
        warnings=[{"level": "warning", "value": "days tell", "rule": "they do not", "next_step": "be careful"}],
        settings={"transfer.arms": "<script>alert(1)</script>"},
        provenance=[{"role": "cohort", "artifact": "cohort-1", "sha256": "ab"}])
    return replace(page, **other)  # type: ignore[arg-type]


def test_there_is_a_row_for_each_line_and_reading_with_the_name_of_its_study(table: pl.DataFrame) -> None:
    assert table.select("arm", "study", "reads", "reading").rows() == [
        *(("decomposition", "nothing", "shared words", reading) for reading in ("stated", "tokens")),
        *(("stage1+2", "here", "shared words", reading) for reading in ("stated", "tokens")),
        *(("stage1+2", "there", "own words", reading) for reading in ("stated", "tokens")),
        (EXPERT, "here", "shared features", "model"), (EXPERT, "there", "all features", "model")]
    assert set(table["n"]) == {60}


def test_points_are_those_of_scikit_learn_inside_their_intervals(table: pl.DataFrame) -> None:
    part, row = verdicts()[MOVED], row_of(table, MOVED, "tokens")
    assert row["auroc_point"] == pytest.approx(roc_auc_score(part["label"], part["token_probability"]))
    assert row["auprc_point"] == pytest.approx(average_precision_score(part["label"], part["token_probability"]))
    assert row["parse_rate"] == pytest.approx(52 / 60)
    assert row["auroc_low"] <= row["auroc_point"] <= row["auroc_high"]


def test_what_moved_is_paired_with_the_same_arm_at_home_and_with_the_untrained_one(table: pl.DataFrame) -> None:
    moved, own, base = (row_of(table, line, "tokens") for line in (MOVED, OWN, UNTRAINED))
    assert moved["auroc_target_point"] == pytest.approx(moved["auroc_point"] - own["auroc_point"])
    assert moved["auroc_target_high"] < 0 and moved["auroc_target_p"] < 0.1
    assert moved["auroc_base_point"] == pytest.approx(moved["auroc_point"] - base["auroc_point"])
    assert own["auroc_target_point"] is own["auroc_base_point"] is base["auroc_base_point"] is None
    there = row_of(table, EXPERTS[0], "model")
    assert there["auroc_target_point"] == pytest.approx(
        there["auroc_point"] - row_of(table, EXPERTS[1], "model")["auroc_point"])
    assert there["auroc_base_point"] is None


def test_p_values_are_corrected_over_the_lines_of_a_reading() -> None:
    more = {**verdicts(), Line("stage1", "source", "shared words"): verdicts_of("x", STAYS, 1.0, 7),
            Line("stage1", "target", "own words"): verdicts_of("x", STAYS, 2.0, 8)}
    found = results(more, NAMES, 60, 1)
    moved = row_of(found, MOVED, "tokens")
    assert moved["auroc_target_p_holm"] == pytest.approx(min(1.0, 2 * moved["auroc_target_p"]))


def test_without_the_arm_at_home_there_is_no_difference() -> None:
    found = results({line: part for line, part in verdicts().items() if line not in (OWN, UNTRAINED)}, NAMES, 30, 1)
    row = row_of(found, MOVED, "tokens")
    assert row["auroc_target_point"] is None and row["auroc_base_point"] is None
    assert headline(found)[0].endswith(" %.") and transfer.cells(found)[0][-4:] == ["–"] * 4


def test_stays_of_one_patient_are_drawn_together() -> None:
    test = STAYS.filter(pl.col("split") == "test")
    two = {stay: f"p{place // 2}" for place, stay in enumerate(test["stay_id"])}
    alone, together = (results(verdicts(), NAMES, 60, 1, patients) for patients in (None, two))
    assert alone["auroc_point"].equals(together["auroc_point"])
    assert not alone["auroc_low"].equals(together["auroc_low"])


def test_all_lines_judge_the_same_stays() -> None:
    other = {**verdicts(), OWN: verdicts()[OWN].filter(pl.col("stay_id") != "s002")}
    with pytest.raises(DataError, match="judged 59 stays"):
        results(other, NAMES, 10, 1)
    with pytest.raises(DataError, match="no verdicts"):
        results({}, NAMES, 10, 1)


def test_the_headline_tells_what_each_line_gained_and_lost(table: pl.DataFrame) -> None:
    told = headline(table)
    assert len(told) == 2 and told[0].startswith("stage1+2, trained on here: AUROC ")
    assert "minus trained there −" in told[0] and "minus untrained +" in told[0]
    few = headline(table.with_columns(pl.lit(4, pl.Int64).alias("negative_patients")))
    assert few[0].startswith("Only 4 of the 60 test patients") and few[1:] == told


def test_a_target_of_one_patient_has_intervals_of_its_stays_and_no_difference() -> None:
    found = results(verdicts(), NAMES, 20, 1, dict.fromkeys(STAYS["stay_id"], "p"))
    assert found["auroc_target_p"].null_count() == found["auroc_base_p"].null_count() == found.height
    assert (found["auroc_low"] < found["auroc_high"]).any() and "of one patient" in headline(found)[1]


def test_the_picture_has_every_line_once(table: pl.DataFrame) -> None:
    svg = transfer.picture(table)
    words = "".join(ElementTree.fromstring(svg).itertext())
    for label in ("stage1+2: here, shared words", "decomposition: untrained, shared words",
                  "expert: there, all features"):
        assert label in words
    assert "http" not in svg and svg == transfer.picture(table)


def test_the_page_fetches_nothing_escapes_what_it_is_given_and_names_no_stay(table: pl.DataFrame) -> None:
    page = transfer_page.render(page_of(table, source="<b>x</b>"))
    assert "<b>x</b>" not in page and "<script" not in page and "&lt;script&gt;" in page
    assert not re.search(r"(?:src|href)=\"(?!data:,|#)", page) and "default-src 'none'" in page
    assert page.lstrip().startswith("<!doctype html>") and page.count("<svg") == 1
    assert "cohort-1" in page and "days tell" in page and "18.02" in page
    assert not any(stay in page for stay in STAYS["stay_id"])


def test_page_and_markdown_say_what_is_shared_and_what_is_missing(table: pl.DataFrame) -> None:
    for text in (transfer_page.render(page_of(table)), transfer_page.markdown(page_of(table))):
        assert "here knows 17 features, there 73; 1 of them is the same and measured in both." in text
        assert "there has not judged stage1 itself" in text
    assert "has not judged" not in transfer_page.markdown(page_of(table, without=[], warnings=[]))
    assert "| Glucose | mg/dL | glucose | mmol/L | 18.02 | 98 % | 50 % |" in transfer_page.markdown(page_of(table))
