"""Wilson's interval for a rate: the one interval that every counted rate is shown with.

Intervals that belong to a model (a trend's slope, a baseline's posterior, a difference of arms)
live with their model in `trend`, `baseline` and `experiment`.
"""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist


def wilson(successes: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Interval for the rate behind `successes` of `n` independent trials.

    Unlike rate +- 2 standard errors it stays inside [0, 1], and it has a width where all or none
    succeeded.

    Args:
        successes: How many succeeded, 0 to n.
        n: How many were tried. With 0 nothing is known and the interval is (0, 1).
        level: Share of such intervals that hold the true rate, between 0 and 1.

    Returns:
        Lower and upper bound, fractions.

    Raises:
        ValueError: successes outside [0, n], or level outside (0, 1).

    Source: E. B. Wilson, JASA 22 (1927), 209-212.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"successes = {successes!r} is not between 0 and n = {n!r}")
    if not 0 < level < 1:
        raise ValueError(f"level = {level!r} is not between 0 and 1")
    if n == 0:
        return 0.0, 1.0
    z2 = NormalDist().inv_cdf((1 + level) / 2) ** 2
    rate = successes / n
    centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = sqrt(z2 * (rate * (1 - rate) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    # At 0 and n the bound is exact; rounding must not put the rate outside its own interval.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high
