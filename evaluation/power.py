"""Power: the smallest true difference that a test split of this size would show.

In goes the spread of a paired difference over the bootstrap resamples of patients, out comes the difference that would
be found in four of five such studies. The spread is that of the two arms as they are: arms that agree more often on
a stay, or a larger split, show smaller differences.
"""

from __future__ import annotations

from scipy.stats import norm

from contracts.errors import DataError
from evaluation.metrics import Floats

LEVEL, POWER = 0.05, 0.80
METHOD = ("standard deviation of the paired difference over the bootstrap resamples of patients, times z(1 - 0.05 / 2) "
          "+ z(0.80) = 2.80 (normal approximation, two-sided, one comparison without Holm's correction)")


def smallest_difference(gaps: Floats, level: float = LEVEL, power: float = POWER) -> float:
    """The smallest true difference that a two-sided test at `level` finds with probability `power`.

    Args:
        gaps: paired difference on each resample, (B,).

    Returns:
        (z(1 - level / 2) + z(power)) sd(gaps), in the measure's unit.

    Raises:
        DataError: fewer than two resamples.
    """
    if gaps.size < 2:
        raise DataError(f"{gaps.size} resamples", "a spread needs two", "raise evaluation.interval_bootstraps")
    return float((norm.ppf(1 - level / 2) + norm.ppf(power)) * gaps.std(ddof=1))
