"""Guidance of several experts: who is heard under each rule."""

from __future__ import annotations

import polars as pl
import pytest

from contracts.errors import ContractError
from contracts.frames import READINGS, top_features
from prompts.guidance import expert_features

SHOWN = {"s1": ("A", "B", "C", "D"), "s2": ("A", "B", "C", "D")}


def readings(**orders: str) -> pl.DataFrame:
    """Readings in which each stay's tokens have the ranks of their letters in a word."""
    rows = [{"stay_id": stay, "risk": 0.5, "feature": name, "attention": 1.0 / (place + 2), "rank": place + 1}
            for stay, word in orders.items() for place, name in enumerate(word)]
    return READINGS.check(pl.DataFrame(rows, schema=dict(READINGS.dtypes)))


FIRST, SECOND = readings(s1="ABCD", s2="ABCDE"), readings(s1="DACB", s2="ABCDE")
THIRD = readings(s1="CDAB", s2="EABCD")


def test_one_expert_is_heard_as_it_is() -> None:
    assert expert_features([FIRST], 2, SHOWN, "union") == {"s1": ["A", "B"], "s2": ["A", "B"]}


@pytest.mark.parametrize(("rule", "expected"), [("union", "ACDB"), ("vote", "AD"), ("rank", "AC")])
def test_rules_of_several_experts(rule: str, expected: str) -> None:
    # First two of each: AB, DA, CD. Mean places: A 1, C and D 4/3 (the first expert has C before D), B 7/3.
    found = expert_features([FIRST, SECOND, THIRD], 2, SHOWN, rule)  # type: ignore[arg-type]
    assert "".join(found["s1"]) == expected


def test_a_token_that_the_prompt_does_not_show_is_nobodys() -> None:
    found = expert_features([FIRST, THIRD], 4, SHOWN, "union")
    assert "E" not in found["s2"]


def test_what_two_of_three_name_beats_what_one_names_first() -> None:
    experts = [readings(s1="ABCD"), readings(s1="BACD"), readings(s1="DBAC")]
    assert expert_features(experts, 2, {"s1": SHOWN["s1"]}, "vote")["s1"] == ["B", "A"]


def test_experts_of_other_stays_are_refused() -> None:
    with pytest.raises(ContractError, match="same stays"):
        expert_features([FIRST, readings(s1="ABCD")], 2, SHOWN, "rank")


def test_what_an_expert_does_not_attend_to_is_not_named_to_fill_the_list() -> None:
    seen = pl.when(pl.col("feature").is_in(["B", "D"])).then(pl.col("attention")).otherwise(0.0).alias("attention")
    alone = FIRST.with_columns(seen)
    assert expert_features([alone], 4, SHOWN, "union") == {"s1": ["B", "D"], "s2": ["B", "D"]}
    assert top_features(alone, 3) == top_features(alone, 2) == {"s1": ["B", "D"], "s2": ["B", "D"]}
    nothing = FIRST.with_columns(pl.when(pl.col("stay_id") == "s1").then(0.0).otherwise(pl.col("attention"))
                                 .alias("attention"))
    assert expert_features([nothing], 2, SHOWN, "union") == {"s1": [], "s2": ["A", "B"]}


@pytest.mark.parametrize("rule", ["union", "vote", "rank"])
def test_several_experts_name_nothing_that_none_of_them_attends_to(rule: str) -> None:
    only_a, only_c = (FIRST.with_columns(pl.when(pl.col("feature") == name).then(1.0).otherwise(0.0).alias("attention"))
                      for name in "AC")
    found = expert_features([only_a, only_c], 4, SHOWN, rule)  # type: ignore[arg-type]
    assert found == {"s1": ["A", "C"], "s2": ["A", "C"]}
