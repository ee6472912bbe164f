"""Control of the false discovery rate across many tests.

Belongs here: turning the p-values of one family of tests into q-values. Does not: where the
p-values come from (the other modules of `sb_serving.stats`) and the level at which a finding is
called significant (the caller's argument).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["benjamini_hochberg"]


def benjamini_hochberg(p: ArrayLike, m: int | None = None) -> NDArray[np.float64]:
    """Return the Benjamini-Hochberg q-value of every p-value.

    `q <= level` selects the same tests as the step-up procedure at that level. The family may be
    larger than the p-values at hand: tests that were possible but not worth computing count with
    p = 1, which is what `m` says. Leaving them out would make every remaining p look rarer than
    it is.

    Args:
        p: P-values in [0, 1], any order, shape (n,).
        m: Number of tests in the family; at least n. Default n.

    Returns:
        Q-values in the order of `p`, shape (n,), each at least its p-value and at most 1.

    Raises:
        ValueError: A p-value is NaN or outside [0, 1], `p` has more than one dimension, or `m`
            is smaller than n.

    Source: Benjamini and Hochberg (1995), Journal of the Royal Statistical Society B 57, 289-300.
    """
    values = np.asarray(p, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"p must have one dimension, not {values.ndim}")
    n = len(values)
    family = n if m is None else m
    if family < n:
        raise ValueError(f"m = {family} is smaller than the number of p-values, {n}")
    if n == 0:
        return np.empty(0, dtype=np.float64)
    if not bool(np.all((values >= 0.0) & (values <= 1.0))):
        raise ValueError("p-values must lie in [0, 1]")
    order = np.argsort(values, kind="stable")
    # Dividing by rank / family (not multiplying by family / rank) keeps q = p exact at the top.
    steps = values[order] / (np.arange(1, n + 1) / family)
    smallest_from_here = np.minimum.accumulate(steps[::-1])[::-1]
    q = np.empty(n, dtype=np.float64)
    q[order] = np.minimum(smallest_from_here, 1.0)
    return q
