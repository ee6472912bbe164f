"""Lasting falls of a completion rate: since some day up to now, however few calls a day has.

Belongs here: whether the days since some boundary complete less often than all days before, of many
skills at once. Does not: windows of a day or less (`scan`, `window_model`), when exactly it began
(`changepoint`), slow drifts (`trend`).

A skill with three calls a day can fail half of the time for a week, and no window of 24 hours is
out of the ordinary. Each boundary is tried: the runs since then against a beta-binomial with the
rate before, whose dispersion is the rate's own uncertainty plus how unlike each other stretches of
that length used to be, of all skills together. The smallest p-value is multiplied by the number of
boundaries (Bonferroni): neighbouring ones are nearly the same test, so this is conservative.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sb_serving.stats.pooling import pooled
from sb_serving.stats.tails import beta_binomial_p

__all__ = ["Lasting", "lasting_falls"]

Floats: TypeAlias = NDArray[np.float64]

LEAST_BEFORE = 14
"""Days before the first boundary ..."""

LEAST_DECIDED = 50
"""... and runs on them, as for windows."""

LEAST_FAILED = 3
"""Fewest failures since the boundary."""

LEAST_FALL = 0.10
"""Smaller falls are not reported, however certain: at 10,000 calls a day nothing stays level."""

STRETCHES = (1, 2, 4, 7)
"""Lengths, in days, of which the dispersion is learned; longer falls use the last."""

USUAL_RHO = (0.01, 1e4)
"""Dispersion before anything is seen, and how sure of it: one over a variance of .01 squared."""


@dataclass(frozen=True, slots=True)
class Lasting:
    """A fall that lasts to the end.

    Attributes:
        skill: Row.
        since: First day of it, a column.
        n: Decided runs since.
        rate_before: Completed / decided before.
        rate_since: The same since.
        boundary_p: P-value of this boundary alone.
        p_value: The same for the best of all boundaries tried.
    """

    skill: int
    since: int
    n: int
    rate_before: float
    rate_since: float
    boundary_p: float
    p_value: float


def lasting_falls(
    completed: Floats, decided: Floats, *, earliest: int
) -> tuple[list[Lasting], int]:
    """Find the skills whose rate has fallen, each with its most convincing boundary.

    Args:
        completed: Completed runs, shape (skills, days); the last day is the latest.
        decided: Completed and failed runs, same shape.
        earliest: First column that may be a boundary.

    Returns:
        One entry per skill with a fall of at least `LEAST_FALL`, whatever its p-value, and how many
        skills had enough runs to be judged.
    """
    days = decided.shape[1]
    first = max(earliest, LEAST_BEFORE)
    if first >= days:
        return [], 0
    judged = np.flatnonzero(decided[:, :first].sum(axis=1) >= LEAST_DECIDED)
    if len(judged) == 0:
        return [], 0
    k, n = completed[judged], decided[judged]
    rho = _dispersions(k[:, :first], n[:, :first])
    boundaries = np.arange(first, days)
    before_k, before_n = k.cumsum(axis=1)[:, boundaries - 1], n.cumsum(axis=1)[:, boundaries - 1]
    since_k, since_n = k.sum(axis=1)[:, None] - before_k, n.sum(axis=1)[:, None] - before_n
    mean = (before_k + 0.5) / (before_n + 1.0)
    rate = since_k / np.maximum(since_n, 1.0)
    stretch = np.searchsorted(STRETCHES[:-1], days - boundaries)
    dispersion = np.minimum(rho[:, stretch] + 1.0 / (before_n + 2.0), 0.9)
    tried = (mean - rate >= LEAST_FALL) & (since_n - since_k >= LEAST_FAILED)
    tried &= mean - _rate_of_later_half(k, n, boundaries) >= LEAST_FALL
    p = np.ones(mean.shape)
    p[tried], _ = beta_binomial_p(since_k[tried], since_n[tried], mean[tried], dispersion[tried])
    best = p.argmin(axis=1)
    found = []
    for row in np.flatnonzero(tried.any(axis=1)):
        at = int(best[row])
        if not tried[row, at] or _is_drift(k[row], n[row], int(boundaries[at])):
            continue
        found.append(
            Lasting(
                skill=int(judged[row]),
                since=int(boundaries[at]),
                n=int(since_n[row, at]),
                rate_before=float(before_k[row, at] / before_n[row, at]),
                rate_since=float(rate[row, at]),
                boundary_p=float(p[row, at]),
                p_value=min(float(p[row, at]) * len(boundaries), 1.0),
            )
        )
    return found, len(judged)


def _rate_of_later_half(k: Floats, n: Floats, boundaries: NDArray[np.int64]) -> Floats:
    """Rate in the later half of the days since each boundary; a bad day that is over is no fall."""
    days = k.shape[1]
    half = np.minimum(boundaries + (days - boundaries + 1) // 2, days - 1)
    late_k, late_n = (part[:, ::-1].cumsum(axis=1)[:, days - 1 - half] for part in (k, n))
    return np.asarray(late_k / np.maximum(late_n, 1.0))


def _dispersions(k: Floats, n: Floats) -> Floats:
    """Dispersion of stretches of each length, by moments, shape (skills, lengths).

    Skills steady each other. Longer stretches are never taken to be steadier than shorter ones are
    unsteady: few of them fit into the past.
    """
    rate = (k.sum(axis=1) + 0.5) / (n.sum(axis=1) + 1.0)
    binomial = (rate * (1.0 - rate))[:, None]
    out = np.zeros((len(k), len(STRETCHES)))
    for column, length in enumerate(STRETCHES):
        fits = k.shape[1] // length * length
        blocks = (len(k), -1, length)
        block_k = k[:, -fits:].reshape(blocks).sum(axis=2)
        block_n = n[:, -fits:].reshape(blocks).sum(axis=2)
        # The rate was fitted to the same days, which takes the share n / sum(n) from each square.
        left = 1.0 - block_n / np.maximum(n.sum(axis=1, keepdims=True), 1.0)
        square = (block_k - block_n * rate[:, None]) ** 2 / np.maximum(left, 0.25)
        certain = block_n * binomial
        extra = certain * np.maximum(block_n - 1.0, 0.0)
        variance = np.maximum(certain + USUAL_RHO[0] * extra, 1e-12)
        pull = extra / (2.0 * variance**2 + variance)
        evidence = (pull * extra).sum(axis=1)
        moments = (pull * (square - certain)).sum(axis=1) / np.maximum(evidence, 1e-12)
        estimate, _ = pooled(moments, evidence, *USUAL_RHO)
        out[:, column] = np.maximum(estimate, 0.0)
    # Were days alike, rho would stay the same; independent days make it fall as 1 / days.
    floor = np.maximum.accumulate(out * np.array(STRETCHES), axis=1) / np.array(STRETCHES)
    return np.asarray(np.maximum(out, floor))


def _is_drift(k: Floats, n: Floats, boundary: int) -> bool:
    """Whether a straight line through the days fits better than one step does."""
    residual = k - n * k.sum() / n.sum()
    day = np.arange(len(k)) - (n * np.arange(len(k))).sum() / n.sum()
    since = (np.arange(len(k)) >= boundary) - n[boundary:].sum() / n.sum()
    line, step = ((residual * x).sum() ** 2 / (n * x * x).sum() for x in (day, since))
    return bool(line > step)
