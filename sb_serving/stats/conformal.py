"""How rare a score is among the scores of its own past, beyond the largest of them too.

Belongs here: a rank turned into a p-value, continued past the largest score by a fitted tail, the
tails of many skills steadying each other. Does not: what is scored (`window_model`).

A rank among n past scores cannot fall below 1 / (n + 1), and 1 in 700 is an hour a month. Scores
in the top twentieth of the past are therefore judged by their excess over that level: a generalised
Pareto tail, predicted from the few excesses that there are, so that few excesses mean a heavy tail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sb_serving.stats.pooling import pooled

__all__ = ["Tail", "pool_tails", "tail_of", "tail_p"]

Floats: TypeAlias = NDArray[np.float64]

TAIL_SHARE = 0.05
"""Share of the past that counts as its tail."""

MIN_TAIL = 8
"""Fewest scores a tail is fitted to."""

MAX_SHAPE = 0.9
"""Heaviest tail: beyond it the mean of the excess, on which the fit rests, stops existing."""

USUAL_EXCESS = (float(np.log(0.4)), 2.0)
"""What is assumed of a tail before it is seen: log of mean excess over threshold (0.43 for the
square of a normal, 0.33 for an exponential) and how many excesses that assumption is worth."""

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
        shape: Of the generalised Pareto distribution; 0 is exponential, more is heavier.
        excesses: How many independent excesses the fit is worth.
    """

    ordered: Floats
    threshold: float
    share: float
    mean: float
    shape: float
    excesses: float


def tail_of(past: Floats, *, together: int = 1) -> Tail:
    """Fit the tail of past scores, large being strange.

    Args:
        past: Earlier scores, not NaN, shape (n,).
        together: How many neighbouring past scores say the same thing, because their windows
            overlap.

    Source: probability-weighted moments, Hosking and Wallis (1987), Technometrics 29, 339-349.
    """
    ordered = np.sort(past)
    n = len(ordered)
    k = max(MIN_TAIL, int(TAIL_SHARE * n))
    none = Tail(ordered, np.inf, 0.0, 1.0, 0.0, 1.0)
    if k >= n:
        return none
    threshold = float(ordered[-k - 1])
    excess = ordered[-k:] - threshold
    mean = float(excess.mean())
    if threshold <= 0.0 or mean <= 0.0:
        return none
    weighted = float((excess * np.arange(k - 1, -1, -1)).mean()) / (k - 1)
    shape = 2.0 - mean / max(mean - 2.0 * weighted, 1e-12 * mean)
    return Tail(ordered, threshold, (k + 1.0) / (n + 1.0), mean, shape, max(k / together, 1.0))


def pool_tails(tails: Sequence[Tail]) -> list[Tail]:
    """Let tails steady each other: relative to its threshold, each moves towards their mean.

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
        np.log([tail.mean / tail.threshold for tail in there]), worth, *USUAL_EXCESS
    )
    shape, _ = pooled(np.array([tail.shape for tail in there]), worth, *USUAL_SHAPE)
    steadied = (
        replace(
            tail,
            mean=tail.threshold * float(np.exp(log_ratio)),
            shape=min(max(float(bend), 0.0), MAX_SHAPE),
            excesses=1.0 / float(error),
        )
        for tail, log_ratio, bend, error in zip(there, size, shape, variance, strict=True)
    )
    return [next(steadied) if np.isfinite(tail.threshold) else tail for tail in tails]


def tail_p(tail: Tail, scores: Floats) -> Floats:
    """P-values of scores by their rank in the past, or by the tail where they are in it.

    Args:
        tail: The past.
        scores: Shape (t,).

    Returns:
        P-values in (0, 1], shape (t,). Predicting from k exponential excesses gives a generalised
        Pareto tail of shape 1 / k; that is added to the fitted shape.
    """
    n = len(tail.ordered)
    rank = (n - np.searchsorted(tail.ordered, scores, side="left") + 1.0) / (n + 1.0)
    if not np.isfinite(tail.threshold):
        return np.asarray(rank, dtype=np.float64)
    scale = tail.mean * (1.0 - tail.shape)
    shape = min(tail.shape + 1.0 / tail.excesses, MAX_SHAPE)
    over = np.maximum(scores - tail.threshold, 0.0)
    beyond = tail.share * (1.0 + shape * over / scale) ** (-1.0 / shape)
    return np.asarray(np.where(over > 0.0, beyond, rank), dtype=np.float64)
