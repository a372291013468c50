"""Small cells of a table of counts: which ones are hidden, and which others so that no difference gives them away.

In: counts and what adds up to what. Out: a mask.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def small(counts: np.ndarray, smallest: int) -> np.ndarray:
    """Mask of counts from 1 to `smallest` - 1. Zero tells of nobody and stays."""
    return (counts > 0) & (counts < smallest)


def hidden(counts: np.ndarray, smallest: int, sums: Sequence[Sequence[tuple[int, int]]]) -> np.ndarray:
    """Small cells, and as few others as needed so that each sum with a hidden cell has at least two.

    Args:
        counts: (R, C).
        smallest: the smallest count that may be shown.
        sums: cells (row, column) that are tied by one sum, as a total and its parts; where all but one are shown, that
            one can be worked out.

    Returns:
        mask (R, C), True = hidden.
    """
    mask = small(counts, smallest)
    changed = True
    while changed:
        changed = False
        for cells in sums:
            if sum(bool(mask[cell]) for cell in cells) != 1:
                continue
            # The smallest of the others loses least; one that counts nobody protects nobody, so it comes last.
            rest = sorted((cell for cell in cells if not mask[cell]), key=lambda cell: (counts[cell] == 0,
                                                                                      counts[cell]))
            if rest:
                mask[rest[0]] = changed = True
    return mask
