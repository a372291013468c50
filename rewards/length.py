"""Soft overlong punishment: what a long answer costs. In: its tokens; out: one number, added to the reward."""

from __future__ import annotations


def overlong_penalty(tokens: int, longest: int, buffer: int) -> float:
    """0 up to `longest - buffer` tokens, then falling linearly to -1 at `longest` (DAPO, Yu et al. 2025, equation 13).

    Args:
        tokens: of the answer, its end token included.
        longest: most tokens of an answer; what reached it is taken for cut off.
        buffer: tokens over which the penalty grows; 0: no penalty.

    Returns:
        A number from -1 to 0.
    """
    if buffer == 0:
        return 0.0
    return -min(max((tokens - (longest - buffer)) / buffer, 0.0), 1.0)
