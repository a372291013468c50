"""Missing values: last observation carried forward inside a stay; what was never observed stays null.

In: visits. Out: frames of the same rows, ordered by stay and visit.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl


def carried_forward(visits: pl.DataFrame, features: Sequence[str]) -> pl.DataFrame:
    """Fills each null with the newest earlier value of the same feature and stay (LOCF).

    Args:
        visits: contract VISITS.

    Returns:
        the same columns, ordered by stay_id and visit; null = not observed up to this visit.
    """
    ordered = visits.sort("stay_id", "visit")
    return ordered.with_columns(pl.col(*features).forward_fill().over("stay_id")) if features else ordered


def measured(visits: pl.DataFrame, features: Sequence[str]) -> pl.DataFrame:
    """The mask: stay_id, visit and, for each feature, whether it was measured on that day."""
    ordered = visits.sort("stay_id", "visit")
    return ordered.select("stay_id", "visit", *(pl.col(name).is_not_null() for name in features))
