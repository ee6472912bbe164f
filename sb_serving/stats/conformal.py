"""How rare a score is among the scores of its own past, beyond the largest of them too.

Belongs here: a rank turned into a p-value, continued past the largest score by a fitted tail, the
tails of many skills steadying each other. Does not: what is scored (`window_model`).

A rank among n past scores cannot fall below 1 / (n + 1), and 1 in 700 is an hour a month. Scores
in the top twentieth of the past are therefore judged by their excess over that level: a generalised
Pareto tail, predicted from the few excesses that there are, so that few excesses mean a heavy tail.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import exp, log, pi, sqrt
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from sb_serving.stats.pooling import pooled

__all__ = ["Tail", "exponential", "pool_tails", "square_of_normal", "tail_of", "tail_p"]

Floats: TypeAlias = NDArray[np.float64]

TAIL_SHARE = 0.05
"""Share of the past that counts as its tail."""

MIN_TAIL = 8
"""Fewest scores a tail is fitted to."""

MAX_SHAPE = 0.9
"""Heaviest tail: beyond it the mean of the excess, on which the fit rests, stops existing."""

USUAL_EXCESS = (0.0, 2.0)
"""What is assumed of a tail before it is seen: log of its mean excess by that of the distribution
that the scores should have, and how many excesses that assumption is worth."""

USUAL_SHAPE = (0.0, 2.0)
"""The same for the shape."""


@dataclass(frozen=True)
class Tail:
    """The past scores of one skill.

    Attributes:
        ordered: Scores from small to large.
        threshold: Where the tail begins; infinite where too few scores, or equal ones, allow none.
        share: Share of the past above the threshold.
        mean: Mean excess over the threshold.
        usual: The mean excess that the scores should have there, given the threshold's size.
        shape: Of the generalised Pareto distribution; 0 is exponential, more is heavier.
        excesses: How many independent excesses the fit is worth.
        unsteady: Variance of the logarithm of the threshold, which is itself an estimate.
    """

    ordered: Floats
    threshold: float
    share: float
    mean: float
    usual: float
    shape: float
    excesses: float
    unsteady: float


def exponential(share: float) -> float:
    """Mean excess over the threshold that `share` of an exponential lies above, by that threshold.

    What -log p is distributed like where p is right.
    """
    return 1.0 / -log(share)


def square_of_normal(share: float) -> float:
    """The same of the square of a normal value."""
    threshold = float(ndtri(share / 2.0)) ** 2
    above = 2.0 * sqrt(threshold) * exp(-threshold / 2.0) / sqrt(2.0 * pi) + share
    return (above / share - threshold) / threshold


def tail_of(past: Floats, usual: Callable[[float], float], *, together: int = 1) -> Tail:
    """Fit the tail of past scores, large being strange.

    Args:
        past: Earlier scores, not NaN, shape (n,).
        usual: `exponential` or `square_of_normal`: what the scores should be like. A short past
            lends more than a twentieth of itself to the tail, and how far scores lie beyond a
            threshold depends on what share of them does, so tails are compared relative to this.
        together: How many neighbouring past scores say the same thing, because their windows
            overlap.

    Source: probability-weighted moments, Hosking and Wallis (1987), Technometrics 29, 339-349.
    """
    ordered = np.sort(past)
    n = len(ordered)
    k = max(MIN_TAIL, int(TAIL_SHARE * n))
    none = Tail(ordered, np.inf, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0)
    if k >= n:
        return none
    threshold = float(ordered[-k - 1])
    excess = ordered[-k:] - threshold
    mean = float(excess.mean())
    if threshold <= 0.0 or mean <= 0.0:
        return none
    weighted = float((excess * np.arange(k - 1, -1, -1)).mean()) / (k - 1)
    shape = 2.0 - mean / max(mean - 2.0 * weighted, 1e-12 * mean)
    share = (k + 1.0) / (n + 1.0)
    expected = threshold * usual(share)
    # Of a quantile of exponential scores; of squares of normal values it is nearly the same.
    unsteady = (1.0 - share) / (share * log(share) ** 2) * together / n
    worth = max(k / together, 1.0)
    return Tail(ordered, threshold, share, mean, expected, shape, worth, unsteady)


def pool_tails(tails: Sequence[Tail]) -> list[Tail]:
    """Let tails steady each other: relative to what is usual, each moves towards their mean.

    Args:
        tails: One per skill.

    Returns:
        The tails in the same order, worth as many excesses as the pooling earns them.
    """
    there = [tail for tail in tails if np.isfinite(tail.threshold)]
    if not there:
        return list(tails)
    worth = np.array([tail.excesses for tail in there])
    size, variance = pooled(
        np.log([tail.mean / tail.usual for tail in there]), worth, *USUAL_EXCESS
    )
    shape, _ = pooled(np.array([tail.shape for tail in there]), worth, *USUAL_SHAPE)
    steadied = (
        replace(
            tail,
            mean=tail.usual * float(np.exp(log_ratio)),
            shape=min(max(float(bend), 0.0), MAX_SHAPE),
            excesses=1.0 / float(error),
        )
        for tail, log_ratio, bend, error in zip(there, size, shape, variance, strict=True)
    )
    return [next(steadied) if np.isfinite(tail.threshold) else tail for tail in tails]


def tail_p(tail: Tail, scores: Floats) -> Floats:
    """P-values of scores by their rank in the past, or by the tail where they are in it.

    Args:
        tail: The past, steadied by `pool_tails`.
        scores: Shape (t,).

    Returns:
        P-values in (0, 1], shape (t,). Predicting from k exponential excesses gives a generalised
        Pareto tail of shape 1 / k, the variance of the logarithm of their mean; that and the
        threshold's are added to the fitted shape.
    """
    n = len(tail.ordered)
    rank = (n - np.searchsorted(tail.ordered, scores, side="left") + 1.0) / (n + 1.0)
    if not np.isfinite(tail.threshold):
        return np.asarray(rank, dtype=np.float64)
    scale = tail.mean * (1.0 - tail.shape)
    shape = min(tail.shape + 1.0 / tail.excesses + tail.unsteady, MAX_SHAPE)
    over = np.maximum(scores - tail.threshold, 0.0)
    beyond = tail.share * (1.0 + shape * over / scale) ** (-1.0 / shape)
    return np.asarray(np.where(over > 0.0, beyond, rank), dtype=np.float64)
