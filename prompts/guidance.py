"""C_exp of a stay from one expert or several: whose features a trajectory is rewarded for naming.

In: READINGS of the experts, the study's own first. Out: for each stay at most K names, or, by union, up to K of each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import polars as pl

from contracts.errors import ContractError
from contracts.frames import READINGS, top_features

Rule = Literal["union", "vote", "rank"]
Ranked = Sequence[Sequence[str]]


def expert_features(readings: Sequence[pl.DataFrame], count: int, shown: Mapping[str, Sequence[str]], rule: Rule
                    ) -> dict[str, list[str]]:
    """The expert features of every stay.

    Args:
        readings: contract READINGS, one frame an expert.
        count: K.
        shown: stay_id to the tokens that the prompt of this stay shows; a policy cannot name what it cannot see.
        rule: of several experts. "union": what any has among its first K; "vote": what most have among them, by mean
            rank where votes are equal; "rank": the smallest mean ranks among all tokens shown (Borda).

    Raises:
        ContractError: the experts did not read the same stays.
    """
    if len(readings) == 1:
        return top_features(readings[0], count, shown)
    everything = max((len(names) for names in shown.values()), default=0)
    ranked = [top_features(READINGS.check(one), everything, shown) for one in readings]
    if any(one.keys() != ranked[0].keys() for one in ranked):
        raise ContractError(f"the experts read {[len(one) for one in ranked]} stays", "all read the same stays",
                            "train them on the same cohort")
    combine = _RULES[rule]
    return {stay: combine([one[stay] for one in ranked], count) for stay in ranked[0]}


def _union(ranked: Ranked, count: int) -> list[str]:
    named = {name for names in ranked for name in names[:count]}
    return sorted(named, key=_order(ranked))


def _vote(ranked: Ranked, count: int) -> list[str]:
    votes = {name: sum(name in names[:count] for names in ranked) for names in ranked for name in names[:count]}
    order = _order(ranked)
    return sorted(votes, key=lambda name: (-votes[name], *order(name)))[:count]


def _rank(ranked: Ranked, count: int) -> list[str]:
    return sorted({name for names in ranked for name in names}, key=_order(ranked))[:count]


def _order(ranked: Ranked) -> Callable[[str], tuple[float, int, str]]:
    """By mean rank (one behind the last where an expert does not know the token), then as the first expert has it, then
    by name."""
    places = [{name: place for place, name in enumerate(names)} for names in ranked]

    def key(name: str) -> tuple[float, int, str]:
        found = [place.get(name, len(place)) for place in places]
        return sum(found) / len(found), found[0], name

    return key


_RULES: dict[Rule, Callable[[Ranked, int], list[str]]] = {"union": _union, "vote": _vote, "rank": _rank}
