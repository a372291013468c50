"""C_exp of many stays at once, for whatever is shown of each: `prompts.guidance.expert_features` on arrays.

In go READINGS of the experts, out come boolean sets over F names, so that C_exp can be worked out anew for each draw of
a control.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from contracts.errors import ContractError
from contracts.frames import READINGS
from prompts.guidance import Rule

Sets = NDArray[np.bool_]  # (n, F): which of F names are in the set of each stay


@dataclass(frozen=True)
class Guides:
    """Whose features are C_exp.

    Attributes:
        readings: contract READINGS, one frame an expert, the study's own first.
        count: K.
        rule: of several experts.
    """

    readings: Sequence[pl.DataFrame]
    count: int
    rule: Rule = "rank"


@dataclass(frozen=True)
class Ranking:
    """How E experts rank F names for each of n stays.

    Attributes:
        order: columns of the names, largest attention first, those without attention last, (E, n, F).
        known: which names have any attention of the expert; what was never measured has none, (E, n, F).
        count, rule: as of `Guides`.
    """

    order: NDArray[np.integer]
    known: Sets
    count: int
    rule: Rule

    def of(self, stays: NDArray[np.integer]) -> Ranking:
        """The rankings of some stays, by their places, (m,)."""
        return Ranking(self.order[:, stays], self.known[:, stays], self.count, self.rule)

    def top(self, shown: Sets) -> Sets:
        """C_exp of each stay where `shown`, (n, F), is all that there is to see."""
        allowed = self.known & shown
        places = np.stack([_places(order, there) for order, there in zip(self.order, allowed, strict=True)])
        first = (places < self.count) & allowed
        if len(places) == 1 or self.rule == "union":
            return np.asarray(first.any(axis=0))
        most = len(places) * (shown.shape[1] + 1)
        keys = places.sum(axis=0) * most + places[0]  # by mean rank, then as the first expert has it
        if self.rule == "vote":
            keys = keys - first.sum(axis=0) * most**2
        return _least(keys, self.count, np.asarray(allowed.any(axis=0)))


def ranking(guides: Guides, stay_ids: Sequence[str], names: Sequence[str]) -> Ranking:
    """The experts' rankings of some stays.

    Args:
        stay_ids: (n,), each once.
        names: (F,).

    Raises:
        ContractError: readings break their contract, or an expert read nothing of a stay.
    """
    ranks = np.stack([_ranks(READINGS.check(one), stay_ids, names) for one in guides.readings])
    return Ranking(np.argsort(ranks, axis=2, kind="stable"), np.isfinite(ranks), guides.count, guides.rule)


def sets(rows: Sequence[Sequence[str]], names: Sequence[str]) -> Sets:
    """Sets over `names`; what is not among them is left out."""
    column = {name: place for place, name in enumerate(names)}
    found = np.zeros((len(rows), len(names)), dtype=bool)
    for row, held in enumerate(rows):
        found[row, [column[name] for name in held if name in column]] = True
    return found


def _ranks(readings: pl.DataFrame, stay_ids: Sequence[str], names: Sequence[str]) -> NDArray[np.float64]:
    """Rank of each name for each stay, (n, F); infinite where it has no attention."""
    missing = len(set(stay_ids) - set(readings["stay_id"]))
    if missing:
        raise ContractError(f"{missing} of {len(stay_ids)} stays stand in no readings of an expert",
                            "the experts read every stay", "judge and report the same cohort")
    rows, columns = ({name: place for place, name in enumerate(values)} for values in (stay_ids, names))
    ranks = np.full((len(stay_ids), len(names)), np.inf)
    attended = readings.filter(pl.col("attention") > 0)
    for stay, feature, rank in attended.select("stay_id", "feature", "rank").iter_rows():
        if stay in rows and feature in columns:
            ranks[rows[stay], columns[feature]] = rank
    return ranks


def _places(order: NDArray[np.integer], allowed: Sets) -> NDArray[np.integer]:
    """Place of each name among those allowed, from 0; how many these are for every other name, (n, F)."""
    places = np.empty(order.shape, dtype=np.int64)
    np.put_along_axis(places, order, np.cumsum(np.take_along_axis(allowed, order, axis=1), axis=1) - 1, axis=1)
    return np.where(allowed, places, allowed.sum(axis=1, keepdims=True))


def _least(keys: NDArray[np.integer], count: int, allowed: Sets) -> Sets:
    """The `count` names with the smallest keys among those allowed, (n, F)."""
    ordered = np.argsort(np.where(allowed, keys, np.iinfo(np.int64).max), axis=1, kind="stable")[:, :count]
    found = np.zeros(allowed.shape, dtype=bool)
    np.put_along_axis(found, ordered, values=True, axis=1)
    return found & allowed
