"""How good are predicted probabilities? Scores, reliability, and which of two is better.

Belongs here: measures of probabilities against outcomes. Does not: making the predictions that are
measured, without looking ahead (`fit`), or deciding what is served (`fit`).

Runs of one session share their luck, so sessions, not runs, are drawn again for the intervals of
log-loss, Brier score and calibration error; the interval of the AUC is DeLong's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

__all__ = ["BINS", "Difference", "Score", "better_by", "losses", "reliability", "scores"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Metric = Literal["auc", "log_loss", "brier", "ece"]

LEVEL = 0.95
BINS = 10
"""Bins of the reliability table and of the calibration error: as many predictions in each."""
RESAMPLES = 200
_SAFE = 1e-6


@dataclass(frozen=True, slots=True)
class Score:
    """One measure of one method.

    Attributes:
        method: What predicted.
        metric: `auc` (0.5 is chance, 1 best), `log_loss` and `brier` (0 is best), or `ece`, the
            mean distance of predicted and observed rate over ten bins of equal size (0 is best).
        value: The measure.
        low: Lower bound of its 95 % interval.
        high: Upper bound.
        n: Predictions.
    """

    method: str
    metric: Metric
    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Difference:
    """How much lower the log-loss of one method is than another's.

    Attributes:
        mean: Mean difference per prediction; above 0 the first is better.
        low: It is above this with 95 % confidence.
    """

    mean: float
    low: float


def losses(completed: Bools, p: Floats) -> Floats:
    """Log-loss of each prediction, shape (n,)."""
    safe = np.clip(p, _SAFE, 1.0 - _SAFE)
    return np.asarray(-np.log(np.where(completed, safe, 1.0 - safe)))


def better_by(completed: Bools, p: Floats, than: Floats, *units: Ints) -> Difference:
    """Compare two sets of predictions of the same runs by log-loss.

    Args:
        completed: Outcomes, shape (n,), n > 0.
        p: Predictions of the first, shape (n,).
        than: Predictions of the second, shape (n,).
        units: What shares its luck: a session and, say, a day of each run, shape (n,) each.

    Returns:
        The difference and its one-sided bound, from the spread of the units' sums; the lowest one
        where there are several kinds. Few units, or some that outweigh the others, lower it:
        Student's t, with as many degrees of freedom as there are units of equal weight.

    Source: Satterthwaite, Biometrics Bulletin 2 (1946), 110-114.
    """
    gained = losses(completed, than) - losses(completed, p)
    mean = float(gained.mean())
    low = mean
    for unit in units:
        _, code = np.unique(unit, return_inverse=True)
        squares = np.bincount(code, gained - mean) ** 2
        variance = float(squares.sum())
        # A single unit says nothing of the spread; its sum of deviations is 0 but for rounding.
        if len(squares) == 1:
            return Difference(mean, -np.inf)
        if variance > 0.0:
            likely = stdtrit(variance**2 / float((squares**2).sum()), LEVEL)
            low = min(low, mean - float(likely) * float(np.sqrt(variance)) / len(gained))
    return Difference(mean, low)


def reliability(completed: Bools, p: Floats) -> Floats:
    """Predicted against observed, by bins of equal size.

    Args:
        completed: Outcomes, shape (n,).
        p: Predictions, shape (n,).

    Returns:
        Upper edge, predictions and completed of each bin, shape (BINS, 3), lowest bin first.
        Equal predictions share a bin, so bins may be empty.
    """
    edges = np.append(np.quantile(p, np.arange(1, BINS) / BINS), 1.0)
    place = _bins(p, edges)
    n = np.bincount(place, minlength=BINS)
    k = np.bincount(place, completed, minlength=BINS)
    return np.stack([edges, n, k], axis=1).astype(np.float64)


def scores(
    completed: Bools, predictions: Mapping[str, Floats], session: Ints, *, seed: int
) -> list[Score]:
    """All measures of several methods on the same runs.

    Args:
        completed: Outcomes, shape (n,); both kinds occur.
        predictions: Method -> probabilities, shape (n,).
        session: Session of each run, shape (n,).
        seed: For the resampling.

    Returns:
        Four scores per method, in the order given.
    """
    _, code = np.unique(session, return_inverse=True)
    groups = int(code.max()) + 1
    draw = np.random.default_rng(seed).poisson(1.0, (RESAMPLES, groups)).astype(np.float32)
    size = draw @ np.bincount(code).astype(np.float32)
    found: list[Score] = []
    for method, p in predictions.items():
        place = _bins(p, reliability(completed, p)[:, 0])
        gap = p - completed
        by_bin = np.bincount(code * BINS + place, gap, groups * BINS).reshape(groups, BINS)
        summed = {
            "log_loss": np.bincount(code, losses(completed, p)),
            "brier": np.bincount(code, gap**2),
        }
        found.append(_auc(method, completed, p))
        for metric in ("log_loss", "brier"):
            again = draw @ summed[metric].astype(np.float32) / size
            value = float(summed[metric].sum() / len(p))
            found.append(_score(method, metric, value, again, len(p)))
        # Resampling adds noise to every bin, whose absolute value the plain error does not have:
        # so the deviations are taken around the error's own, and it is never below 0.
        value = float(np.abs(by_bin.sum(axis=0)).sum() / len(p))
        drawn = np.abs(draw @ by_bin.astype(np.float32)).sum(axis=1) / size
        again = np.maximum(drawn - drawn.mean() + value, 0.0)
        found.append(_score(method, "ece", value, again, len(p)))
    return found


def _bins(p: Floats, edges: Floats) -> NDArray[np.intp]:
    """The bin of each prediction: the first whose upper edge is not below it."""
    return np.searchsorted(edges[:-1], p, side="left")


def _score(method: str, metric: Metric, value: float, again: NDArray[np.floating], n: int) -> Score:
    low, high = np.quantile(again, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Score(method, metric, value, min(float(low), value), max(float(high), value), n)


def _auc(method: str, completed: Bools, p: Floats) -> Score:
    """Area under the ROC curve with its interval.

    Source: DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988), 837-845; midranks as in Sun and
    Xu, IEEE Signal Processing Letters 21 (2014), 1389-1393.
    """
    good, bad = p[completed], p[~completed]
    above = (_midranks(p)[completed] - _midranks(good)) / len(bad)
    below = 1.0 - (_midranks(p)[~completed] - _midranks(bad)) / len(good)
    value = float(above.mean())
    variance = above.var(ddof=1) / len(good) + below.var(ddof=1) / len(bad)
    half = NormalDist().inv_cdf((1 + LEVEL) / 2) * float(np.sqrt(variance))
    return Score(method, "auc", value, max(0.0, value - half), min(1.0, value + half), len(p))


def _midranks(values: Floats) -> Floats:
    """Ranks from 1, ties at their mean."""
    ordered = np.sort(values)
    left, right = (np.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    return np.asarray((left + right + 1) / 2.0)
