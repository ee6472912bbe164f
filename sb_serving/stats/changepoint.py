"""Since when: the point in time from which a skill fails more often than before.

One change is looked for, a rise, at the boundaries of the given steps (days, hours). Which windows
are out of the ordinary is the question of `anomaly`; whether a rate drifts, of `trend`; what moved
together with the rise, of `coincidence`.

Method: binomial likelihood ratio, maximised over the boundaries (D. V. Hinkley and E. A. Hinkley,
Biometrika 57 (1970), 477-488). Its p-value is from permutations: without a change each way of
dealing the failures to the decided runs is equally likely, so no asymptotics are needed and the
search over boundaries is paid for. Failures come in clusters, so the ratio is first divided by how
much more the steps scatter than a binomial (quasi-likelihood). The interval holds the boundaries
that carry 90 % of the posterior, with Jeffreys' prior on both rates; a drop of 1.92 in
log-likelihood, right for a smooth parameter, held the true day in 65 to 95 % of simulations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln, xlogy

LEAST_FAILED = 3
"""With fewer failures no place of a change can be told from chance."""

LEVEL = 0.90
"""Share of the posterior that the interval holds."""

STEPS_FOR_SCATTER = 10
"""Fewest steps whose scatter around two rates says anything."""


@dataclass(frozen=True, slots=True)
class Shift:
    """Where values began to lie above or below what was expected.

    Attributes:
        index: First step after the change.
        low: First step of its 90 % interval.
        high: Last step of its 90 % interval.
    """

    index: int
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Rise:
    """A rise of the failure rate.

    Attributes:
        index: First step after the change.
        low: First step of its 90 % interval.
        high: Last step of its 90 % interval.
        rate_before: Failed / decided before the change.
        rate_after: The same from it on.
        n_before: Decided runs before.
        n_after: Decided runs from it on.
        p_value: Share of permutations with a rise at least as likely; at least 1 / (permutations
            + 1).
    """

    index: int
    low: int
    high: int
    rate_before: float
    rate_after: float
    n_before: int
    n_after: int
    p_value: float


def find_rise(
    failed: NDArray[np.int64],
    decided: NDArray[np.int64],
    *,
    permutations: int = 999,
    seed: int = 0,
) -> Rise | None:
    """Find where the failure rate rose most clearly.

    Args:
        failed: Failed runs per step, in time order, shape (steps,).
        decided: Completed and failed runs per step, same shape.
        permutations: How many to draw.
        seed: Of the draw; the same input gives the same answer.

    Returns:
        The most likely rise, whatever its p-value; None where nothing can be said: fewer than
        `LEAST_FAILED` failures, nothing but failures, or all runs in one step.

    Raises:
        ValueError: Shapes differ, or a step has more failures than runs.
    """
    if failed.shape != decided.shape or failed.ndim != 1:
        raise ValueError(f"failed has shape {failed.shape}, decided {decided.shape}")
    if np.any((failed < 0) | (failed > decided)):
        raise ValueError("a step has more failed runs than decided ones, or fewer than none")
    kept = np.flatnonzero(decided)
    k, n = failed[kept], decided[kept]
    total_k, total_n = int(k.sum()), int(n.sum())
    if total_k < LEAST_FAILED or total_k == total_n or len(kept) < 2:
        return None
    gains = _gains(k[None, :], n)[0]
    best = int(np.argmax(gains))
    if gains[best] <= 0:
        return None
    draws = np.random.default_rng(seed).multivariate_hypergeometric(
        n, total_k, size=permutations, method="marginals"
    )
    scatter = _scatter(k, n, best + 1)
    as_good = int((_gains(draws, n).max(axis=1) >= gains[best] / scatter - 1e-9).sum())
    low, high = _interval(k, n, gains, scatter)
    before_k, before_n = int(k[: best + 1].sum()), int(n[: best + 1].sum())
    return Rise(
        index=int(kept[best + 1]),
        low=int(kept[low + 1]),
        high=int(kept[high + 1]),
        rate_before=before_k / before_n,
        rate_after=(total_k - before_k) / (total_n - before_n),
        n_before=before_n,
        n_after=total_n - before_n,
        p_value=(1 + as_good) / (1 + permutations),
    )


def find_shift(residual: NDArray[np.float64], variance: NDArray[np.float64]) -> Shift | None:
    """Find where counts or values left their expectation, to stay away up to the last step.

    Args:
        residual: What was seen beyond what was expected, per step, in time order, shape (steps,).
        variance: Its variance without a change, same shape; steps with 0 say nothing.

    Returns:
        The most likely place and its interval, by the likelihood of a normal shift whose size is
        integrated out; None without a step that says anything.

    Raises:
        ValueError: Shapes differ, or a variance is below 0.
    """
    if residual.shape != variance.shape or residual.ndim != 1:
        raise ValueError(f"residual has shape {residual.shape}, variance {variance.shape}")
    if np.any(variance < 0):
        raise ValueError("variance is below 0 in a step")
    kept = np.flatnonzero(variance)
    if len(kept) == 0:
        return None
    r, v = residual[kept], variance[kept]
    since_r, since_v = r[::-1].cumsum()[::-1], v[::-1].cumsum()[::-1]
    evidence = since_r**2 / (2.0 * since_v) - np.log(since_v) / 2.0
    posterior = np.exp(evidence - evidence.max())
    order = np.argsort(-posterior, kind="stable")
    held = np.cumsum(posterior[order]) / posterior.sum()
    likely = order[: int(np.searchsorted(held, LEVEL)) + 1]
    return Shift(int(kept[order[0]]), int(kept[likely.min()]), int(kept[likely.max()]))


def _gains(k: NDArray[np.int64], n: NDArray[np.int64]) -> NDArray[Any]:
    """Log-likelihood gained by a rise after each step but the last; 0 where the rate fell.

    Args:
        k: Failures, shape (draws, steps).
        n: Runs, shape (steps,).
    """
    before_k, before_n = k.cumsum(axis=1)[:, :-1], n.cumsum()[:-1]
    total_k, total_n = k.sum(axis=1, keepdims=True), n.sum()
    after_k, after_n = total_k - before_k, total_n - before_n
    gain = (
        _likelihood(before_k, before_n)
        + _likelihood(after_k, after_n)
        - _likelihood(total_k, total_n)
    )
    return np.where(after_k * before_n > before_k * after_n, gain, 0.0)


def _scatter(k: NDArray[np.int64], n: NDArray[np.int64], cut: int) -> float:
    """Pearson's chi-square around the rates before and from `cut` on, by degree of freedom.

    At least 1: steps that scatter less than a binomial do so by chance.
    """
    steps = len(k)
    if steps < STEPS_FOR_SCATTER:
        return 1.0
    after = np.arange(steps) >= cut
    rate = np.where(after, k[after].sum() / n[after].sum(), k[~after].sum() / n[~after].sum())
    variance = n * rate * (1.0 - rate)
    terms = np.where(variance > 0, (k - n * rate) ** 2 / np.where(variance > 0, variance, 1.0), 0.0)
    return max(float(terms.sum()) / (steps - 2), 1.0)


def _interval(
    k: NDArray[np.int64], n: NDArray[np.int64], gains: NDArray[Any], scatter: float
) -> tuple[int, int]:
    """First and last boundary of the smallest set that holds `LEVEL` of the posterior."""
    before_k, before_n = k.cumsum()[:-1], n.cumsum()[:-1]
    after_k, after_n = k.sum() - before_k, n.sum() - before_n
    evidence = betaln(before_k + 0.5, before_n - before_k + 0.5)
    evidence = evidence + betaln(after_k + 0.5, after_n - after_k + 0.5)
    evidence = np.where(gains > 0, evidence, -np.inf) / scatter
    posterior = np.exp(evidence - evidence.max())
    order = np.argsort(-posterior, kind="stable")
    held = np.cumsum(posterior[order]) / posterior.sum()
    likely = order[: int(np.searchsorted(held, LEVEL)) + 1]
    best = int(np.argmax(gains))
    return min(int(likely.min()), best), max(int(likely.max()), best)


def _likelihood(k: NDArray[np.int64], n: NDArray[np.int64]) -> NDArray[Any]:
    """Binomial log-likelihood at the observed rate, without the constant."""
    return np.asarray(xlogy(k, k / n) + xlogy(n - k, (n - k) / n))
