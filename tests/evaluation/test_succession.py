"""A study against the last one on common test stays, and the rule by which its model becomes the champion."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from configs.schema import Champion
from evaluation import succession
from evaluation.succession_page import Page, cells, markdown, render
from evaluation.verdicts import SCHEMA

RULE = Champion(measure="auroc", margin=0.02, least=10)


def verdicts(noise: float, count: int = 120, first: int = 0, seed: int = 1, arm: str = "stage1+2") -> pl.DataFrame:
    """One arm that sees the label through noise, on stays `first` to `first + count`; every third died."""
    rows = []
    for number in range(first, first + count):
        label = int(number % 3 == 0)
        risk = float(np.clip(0.3 + 0.4 * label + noise * np.random.default_rng([seed, number]).normal(), 0.0, 1.0))
        rows.append({"arm": arm, "stay_id": f"s{number:03d}", "label": label, "text": "", "parsed": True,
                     "probability": risk, "token_probability": risk, "features": [], "prompt_tokens": 1,
                     "completion_tokens": 1, "well_formed": True, "truncated": False, "reading": "tokens"})
    return pl.DataFrame(rows, schema=SCHEMA)


PATIENTS = {f"s{number:03d}": f"p{number // 2:03d}" for number in range(400)}


def rows(old: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    return succession.compare(old, new, PATIENTS, 200, 7)


def test_only_common_stays_with_one_label_are_compared() -> None:
    new = verdicts(0.3, first=60)
    changed = new.with_columns(pl.when(pl.col("stay_id") == "s063").then(0).otherwise(pl.col("label"))
                               .cast(pl.Int8).alias("label"))
    assert set(rows(verdicts(0.3), new)["stays"]) == {60}
    assert set(rows(verdicts(0.3), changed)["stays"]) == {59}


def test_a_study_does_not_differ_from_itself_and_order_plays_no_part() -> None:
    old = verdicts(0.3)
    same = rows(old, old.sample(fraction=1.0, shuffle=True, seed=3))
    assert same["difference"].abs().max() == same["low"].abs().max() == same["high"].abs().max() == 0.0


def test_differences_are_new_minus_old_and_paired() -> None:
    found = rows(verdicts(0.5), verdicts(0.1)).filter((pl.col("measure") == "auroc") & (pl.col("reading") == "stated"))
    row = found.row(0, named=True)
    assert row["difference"] == pytest.approx(row["new"] - row["old"]) and row["difference"] > 0.05
    assert row["low"] <= row["difference"] <= row["high"]


@pytest.mark.parametrize(("old", "new", "replaced", "said"), [
    (0.5, 0.1, True, "the lower end is above -0.02"),
    (0.1, 0.1, True, "the lower end is above -0.02"),
    (0.1, 0.5, False, "the lower end is not above -0.02")])
def test_a_model_that_is_not_worse_replaces_the_champion(old: float, new: float, replaced: bool, said: str) -> None:
    found = succession.crown(rows(verdicts(old), verdicts(new)), ("stage1+2", "stated"), RULE)
    assert found.replaced is replaced and said in found.reason


@pytest.mark.parametrize(("measure", "chance"), [("auroc", "0.500"), ("auprc", "0.333")])
def test_a_model_that_ranks_nobody_replaces_none_not_even_another_such(measure: str, chance: str) -> None:
    alike = verdicts(0.1).with_columns(pl.lit(0.4).alias("probability"))
    found = succession.crown(rows(alike, alike), ("stage1+2", "stated"), Champion(measure=measure))
    assert not found.replaced and f"no better than chance ({chance})" in found.reason
    assert "better than chance" in succession.rule(RULE)


def test_the_champion_stays_where_too_little_can_be_told() -> None:
    key = ("stage1+2", "stated")
    few = succession.crown(rows(verdicts(0.5, count=27), verdicts(0.1, count=27)), key, RULE)
    assert not few.replaced and "9 common test stays of the rarer label; at least 10" in few.reason
    apart = rows(verdicts(0.5), verdicts(0.1, first=200))
    assert apart.height == 0 and not succession.crown(apart, key, RULE).replaced
    other = succession.crown(rows(verdicts(0.1, arm="think"), verdicts(0.1)), key, RULE)
    assert not other.replaced and "was not judged" in other.reason


def test_the_method_decides_and_the_expert_where_no_policy_was_judged() -> None:
    both = pl.concat([verdicts(0.3, arm="vanilla"), verdicts(0.3)])
    expert = verdicts(0.3, arm="expert").with_columns(pl.lit("model").alias("reading"))
    assert succession.judging_key(pl.concat([both, expert])) == ("stage1+2", "stated")
    assert succession.judging_key(expert) == ("expert", "model")


def page(**changes: object) -> Page:
    found = rows(verdicts(0.5), verdicts(0.1))
    values: dict[str, object] = {
        "study": "s", "created": "now", "extract": "<b>x</b>", "verdict": "kept: y", "rule": succession.rule(RULE),
        "counts": {"common": 3}, "differing": [("a|b", "1", "2")], "findings": [("warning", "<i>", "look")],
        "shifts": [("Lactate", "0.1", "", "", "", "")], "rows": found, "provenance": [("cohort", "cohort-1", "ab")]}
    return Page(**{**values, **changes})  # type: ignore[arg-type]


def test_the_page_escapes_all_and_fetches_nothing() -> None:
    text = render(page())
    assert "<b>x</b>" not in text and "&lt;b&gt;x&lt;/b&gt;" in text and "<i>" not in text
    assert "http://" not in text and "https://" not in text and "<script" not in text
    assert len(cells(page().rows)) == page().rows.height and "Champion kept: y" in text


def test_without_common_stays_page_and_markdown_say_so() -> None:
    empty = page(rows=pl.DataFrame(schema=succession.SCHEMA))
    assert "no test stays of both labels" in render(empty) and "No common judged test stays." in markdown(empty)


def test_common_stays_of_one_patient_alone_are_not_compared() -> None:
    found = succession.compare(verdicts(0.5), verdicts(0.1), dict.fromkeys(PATIENTS, "p"), 50, 7)
    assert found.is_empty() and found.schema == pl.Schema(succession.SCHEMA)
    assert not succession.crown(found, ("stage1+2", "stated"), RULE).replaced


def test_a_p_value_that_rounds_to_nothing_is_said_to_be_below_on_page_and_text() -> None:
    small = page(rows=page().rows.with_columns(p=pl.lit(0.0002)))
    assert {line[-1] for line in cells(small.rows)} == {"< 0.001"}
    assert "| < 0.001 |" in markdown(small) and "&lt; 0.001" in render(small) and "0.000 |" not in markdown(small)
