"""The robustness experiment's table, curves and page, from made-up verdicts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree import ElementTree

import polars as pl
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from contracts.errors import DataError
from evaluation import robustness
from evaluation.baselines import judge_expert
from evaluation.robustness import Page, curves, headline, results
from support.judged import readings_of, stays_of, verdicts_of

STAYS = stays_of(180)
SHARES = (0.0, 0.5, 1.0)
Verdicts = dict[tuple[str, float], pl.DataFrame]


def verdicts() -> Verdicts:
    """An arm that falls with the share, one that cannot fall, and the expert; alike for both kinds at share 0."""
    found = {}
    for kind in ("shuffle", "rename"):
        for share in SHARES:
            arms = [verdicts_of("stage1+2", STAYS, 2.2 * (1 - share), 1 + int(10 * share)),
                    verdicts_of("vanilla", STAYS, 0.5, 1), judge_expert(readings_of(STAYS), STAYS)]
            found[kind, share] = pl.concat(arms)
    return found


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    return results(verdicts(), bootstraps=60, seed=1)


def row_of(table: pl.DataFrame, **wanted: object) -> Mapping[str, object]:
    return table.filter(*(pl.col(name) == value for name, value in wanted.items())).row(0, named=True)


def test_there_is_a_row_for_each_kind_arm_reading_and_share(table: pl.DataFrame) -> None:
    places = [(kind, arm, reading, share) for kind in ("shuffle", "rename")
              for arm, reading in (("stage1+2", "stated"), ("stage1+2", "tokens"), ("vanilla", "stated"),
                                   ("vanilla", "tokens"), ("expert", "model")) for share in SHARES]
    assert table.select("kind", "arm", "reading", "share").rows() == places
    assert set(table["n"]) == {60}


def test_points_are_those_of_scikit_learn_inside_their_intervals(table: pl.DataFrame) -> None:
    part = verdicts()["shuffle", 0.5].filter(pl.col("arm") == "stage1+2")
    row = row_of(table, kind="shuffle", share=0.5, arm="stage1+2", reading="tokens")
    assert row["auroc_point"] == pytest.approx(roc_auc_score(part["label"], part["token_probability"]))
    assert row["auprc_point"] == pytest.approx(average_precision_score(part["label"], part["token_probability"]))
    assert row["parse_rate"] == pytest.approx(52 / 60)
    for name in ("auroc", "auprc"):
        assert row[f"{name}_low"] <= row[f"{name}_point"] <= row[f"{name}_high"]


def test_a_change_is_paired_with_the_same_arm_and_reading_at_share_0(table: pl.DataFrame) -> None:
    for row in table.filter(pl.col("arm") == "vanilla").iter_rows(named=True):
        assert row["auroc_change_point"] == (None if row["share"] == 0 else 0.0)
        assert row["auroc_change_low"] == row["auroc_change_high"] == row["auroc_change_point"]
    fallen = row_of(table, kind="shuffle", share=1.0, arm="stage1+2", reading="tokens")
    still = row_of(table, kind="shuffle", share=0.0, arm="stage1+2", reading="tokens")
    assert fallen["auroc_change_point"] == pytest.approx(fallen["auroc_point"] - still["auroc_point"])
    assert fallen["auroc_change_high"] < 0


def test_stays_of_one_patient_are_drawn_together() -> None:
    test = STAYS.filter(pl.col("split") == "test")
    two = {stay: f"p{place // 2}" for place, stay in enumerate(test["stay_id"])}
    alone, together = (results(verdicts(), 60, 1, patients) for patients in (None, two))
    assert alone["auroc_point"].equals(together["auroc_point"])
    assert not alone["auroc_low"].equals(together["auroc_low"])


def test_arms_stays_and_share_0_must_be_there() -> None:
    lacking = verdicts()
    del lacking["shuffle", 0.0]
    with pytest.raises(DataError, match="shuffle has no share 0"):
        results(lacking, 10, 1)
    other_arms = verdicts()
    other_arms["rename", 1.0] = other_arms["rename", 1.0].filter(pl.col("arm") != "vanilla")
    with pytest.raises(DataError, match="the same arms"):
        results(other_arms, 10, 1)
    other_stays = verdicts()
    other_stays["rename", 1.0] = other_stays["rename", 1.0].filter(pl.col("stay_id") != "s002")
    with pytest.raises(DataError, match="judge the same test stays"):
        results(other_stays, 10, 1)
    with pytest.raises(DataError, match="no verdicts"):
        results({}, 10, 1)


def test_text_has_percents_intervals_and_no_change_at_share_0(table: pl.DataFrame) -> None:
    rows = robustness.cells(table)
    assert rows[0][:5] == ["shuffle", "0", "stage1+2", "stated", "60"] and rows[0][7] == rows[0][9] == "–"
    assert re.fullmatch(r"\d+\.\d \[\d+\.\d, \d+\.\d\]", rows[1][6])
    assert re.fullmatch(r"[−+]\d+\.\d \[[−+]\d+\.\d, [−+]\d+\.\d\]", rows[1][7])
    assert robustness.markdown(table).count("\n") == table.height + 2
    assert headline(table)[0].startswith("Shuffle, p = 1: AUROC stage1+2 ")


def test_too_few_patients_with_an_outcome_are_said_first(table: pl.DataFrame) -> None:
    few = headline(table.with_columns(pl.lit(4, pl.Int64).alias("positive_patients")))
    assert few[0].startswith("Only 4 of the 60 test patients") and few[1:] == headline(table)


def test_a_perturbed_split_of_one_patient_has_intervals_of_its_stays_and_no_change() -> None:
    found = results(verdicts(), 20, 1, dict.fromkeys(STAYS["stay_id"], "p"))
    assert found["auroc_change_low"].null_count() == found.height and (found["auroc_low"] < found["auroc_high"]).any()
    assert "test stays are of one patient" in headline(found)[1]


def test_curves_are_one_picture_with_every_arm(table: pl.DataFrame) -> None:
    svg = curves(table, "shuffle", "curve-shuffle")
    words = "".join(ElementTree.fromstring(svg).itertext())
    assert all(arm in words for arm in ("stage1+2", "vanilla", "expert", "AUROC", "AUPRC", "share of the features"))
    assert "p from 0 to 1." in words and svg == curves(table, "shuffle", "curve-shuffle")
    assert "http" not in svg


def test_the_page_fetches_nothing_escapes_what_it_is_given_and_names_no_stay(table: pl.DataFrame) -> None:
    page = robustness.render(Page(
        study="<b>x</b>", created="2026-01-01", outcome="mortality", table=table, touched=[("shuffle", 0.5, 8.0)],
        settings={"robustness.kinds": "<script>alert(1)</script>"},
        provenance=[{"role": "cohort", "artifact": "cohort-1", "sha256": "ab"}]))
    assert "<b>x</b>" not in page and "<script" not in page and "&lt;script&gt;" in page
    assert not re.search(r"(?:src|href)=\"(?!data:,|#)", page) and "default-src 'none'" in page
    assert page.count("<svg") == 2 and "cohort-1" in page
    assert not any(stay in page for stay in STAYS["stay_id"])
