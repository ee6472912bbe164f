"""How good is a skill usually? Completion rates of all skills, shrunk toward the community's.

Belongs here: the beta-binomial model of all skills' rates, the shrunk rate of each with interval
and percentile, and which skills too few users share to be shown. Does not: counting calls and
distinct users (`sql/analyze/baselines.sql`, the assets), storing results.

The model. Skill i completes k_i of n_i calls at a rate drawn from a beta distribution with the
community's mean and strength (alpha + beta: how many calls its opinion is worth). A skill's
estimate is (k + mean * strength) / (n + strength): 3 of 3 stays near the mean, 3,000 of 3,000 does
not. Mean and strength come from all skills together. With a dozen skills they are uncertain, and
the likeliest pair alone would be too sure of itself, so every pair of a grid gets its posterior
weight and the estimate is the average. `docs/statistics/baselines.md` compares this with the
likeliest pair, the raw rate and the global mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv, betaln, expit

__all__ = ["Baseline", "Community", "baselines", "fit"]

Floats = NDArray[np.float64]

LEVEL = 0.95
"""Nominal level of the intervals that are to hold 90 %: with few skills, or rates that are not
quite beta, an interval holds less than it says."""

_GRID = 17
_ZOOMS = 8
_MEAN_LOGIT = 8.0
_STRENGTH = (0.05, 10_000.0)
"""Strengths considered. Past the upper one the skills of any real log are all alike."""
_NEGLIGIBLE = 9.0
"""Points of the grid with a log posterior this far below the best do not matter."""


@dataclass(frozen=True, slots=True)
class Community:
    """What all skills together say about a skill's rate: weighted beta distributions.

    Attributes:
        mean: Mean of each beta distribution, shape (J,).
        strength: Its alpha + beta, shape (J,).
        weight: Its posterior weight with the strength log-uniform before any data, for estimates;
            sums to 1, shape (J,).
        wide: The same with 1 / (1 + strength) uniform, which gives more weight to skills that
            differ, for intervals; sums to 1, shape (J,).
    """

    mean: Floats
    strength: Floats
    weight: Floats
    wide: Floats

    def rate(self, completed: ArrayLike, n: ArrayLike) -> Floats:
        """Shrunk rates.

        Args:
            completed: Completed calls, shape (S,).
            n: Decided calls, shape (S,); 0 gives the community's mean.

        Returns:
            Fractions, shape (S,).
        """
        return self._moments(completed, n, self.weight)[0]

    def interval(self, completed: ArrayLike, n: ArrayLike) -> tuple[Floats, Floats]:
        """Intervals that hold at least 90 % of the true rates.

        The mixture of posteriors is brought to the beta distribution of the same mean and variance.
        Where nothing failed the upper bound is 1, where nothing succeeded the lower is 0: the data
        cannot exclude them.

        Args:
            completed: Completed calls, shape (S,).
            n: Decided calls, shape (S,).

        Returns:
            Lower and upper bounds, shape (S,) each.
        """
        k, total = np.asarray(completed, dtype=np.float64), np.asarray(n, dtype=np.float64)
        mean, variance = self._moments(k, total, self.wide)
        size = mean * (1.0 - mean) / variance - 1.0
        alpha, beta = mean * size, (1.0 - mean) * size
        low = np.where(k == 0, 0.0, betaincinv(alpha, beta, (1.0 - LEVEL) / 2.0))
        high = np.where(k == total, 1.0, betaincinv(alpha, beta, (1.0 + LEVEL) / 2.0))
        rate = self.rate(k, total)
        return np.minimum(low, rate), np.maximum(high, rate)

    def _moments(self, completed: ArrayLike, n: ArrayLike, weight: Floats) -> tuple[Floats, Floats]:
        """Mean and variance of the mixture of posteriors, shape (S,) each."""
        k = np.asarray(completed, dtype=np.float64)[:, None]
        size = np.asarray(n, dtype=np.float64)[:, None] + self.strength
        means = (k + self.mean * self.strength) / size
        # Sums by row, not a matrix product, whose last digit depends on the row's place: skills
        # of equal counts must tie.
        mean = (means * weight).sum(axis=1)
        spread = (means - mean[:, None]) ** 2 + means * (1.0 - means) / (size + 1.0)
        return mean, (spread * weight).sum(axis=1)


def fit(completed: ArrayLike, n: ArrayLike) -> Community:
    """Learn the community's mean and strength from all skills.

    Args:
        completed: Completed calls per skill, shape (S,).
        n: Decided calls per skill, shape (S,). Skills without any say nothing.

    Raises:
        ValueError: A count is missing or negative, or completed exceeds n.

    Source: beta-binomial likelihood; J. G. Skellam, Journal of the Royal Statistical Society B 10
    (1948), 257-261.
    """
    k, total = _checked(completed, n)
    # Many skills share their counts; each pair of counts is looked at once.
    pairs, times = np.unique(np.stack([k, total], axis=1), axis=0, return_counts=True)
    k, total = pairs[:, :1], pairs[:, 1:]
    low = np.array([-_MEAN_LOGIT, np.log(_STRENGTH[0])])
    high = np.array([_MEAN_LOGIT, np.log(_STRENGTH[1])])
    edges = low, high
    for _ in range(_ZOOMS):
        axes = [np.linspace(low[i], high[i], _GRID) for i in range(2)]
        logit, log_strength = (axis.ravel() for axis in np.meshgrid(*axes, indexing="ij"))
        strength = np.exp(log_strength)
        alpha, beta = expit(logit) * strength, expit(-logit) * strength
        likelihood = times @ (betaln(k + alpha, total - k + beta) - betaln(alpha, beta))
        # Jeffreys' prior of a rate for the mean, on the logit scale.
        log_weight = likelihood + 0.5 * np.log(expit(logit) * expit(-logit))
        log_weight -= log_weight.max()
        points = np.stack([logit, log_strength])[:, log_weight > -_NEGLIGIBLE]
        step = (high - low) / (_GRID - 1)
        inner_low = np.maximum(points.min(axis=1) - step, edges[0])
        inner_high = np.minimum(points.max(axis=1) + step, edges[1])
        if np.all(inner_high - inner_low > 0.7 * (high - low)):
            break
        low, high = inner_low, inner_high
    keep = log_weight > -_NEGLIGIBLE
    weight = np.exp(log_weight[keep])
    strength = strength[keep]
    wide = weight * strength / (1.0 + strength) ** 2
    return Community(expit(logit[keep]), strength, weight / weight.sum(), wide / wide.sum())


@dataclass(frozen=True, slots=True)
class Baseline:
    """One skill's place in the community.

    Attributes:
        skill_name: The skill.
        n: Decided calls: completed plus failed.
        users: Distinct users.
        raw_rate: Completed / n.
        shrunk_rate: The estimate; rank by this, never by `raw_rate`.
        low: Lower bound of its 90 % interval.
        high: Upper bound.
        percentile: Share of shown skills with a lower shrunk rate, ties counted half, 0 to 100.
    """

    skill_name: str
    n: int
    users: int
    raw_rate: float
    shrunk_rate: float
    low: float
    high: float
    percentile: float


def baselines(
    skill_name: Sequence[str],
    completed: ArrayLike,
    n: ArrayLike,
    users: ArrayLike,
    *,
    min_users: int = 1,
) -> list[Baseline]:
    """Baselines of all skills that enough users share.

    Skills of fewer users are left out before anything is computed, so that no number shown depends
    on them.

    Args:
        skill_name: One name per skill.
        completed: Completed calls, shape (S,).
        n: Decided calls, shape (S,); skills without any are left out.
        users: Distinct users, shape (S,).
        min_users: Least number of users of a skill that is shown, at least 1.

    Returns:
        One baseline per shown skill, in the order given.

    Raises:
        ValueError: Lengths differ, a count is missing or negative, completed exceeds n, or
            min_users is below 1.
    """
    if min_users < 1:
        raise ValueError(f"min_users = {min_users!r} is below 1")
    k, total = _checked(completed, n)
    people = np.asarray(users, dtype=np.int64)
    if not len(skill_name) == len(k) == len(people):
        raise ValueError("skill_name, completed, n and users differ in length")
    shown = np.flatnonzero((total > 0) & (people >= min_users))
    if len(shown) == 0:
        return []
    k, total = k[shown], total[shown]
    community = fit(k, total)
    rate = community.rate(k, total)
    low, high = community.interval(k, total)
    ordered = np.sort(rate)
    below, not_above = (np.searchsorted(ordered, rate, side=side) for side in ("left", "right"))
    percentile = 100.0 * (below + not_above) / (2.0 * len(rate))
    return [
        Baseline(
            skill_name=skill_name[s],
            n=int(total[i]),
            users=int(people[s]),
            raw_rate=float(k[i] / total[i]),
            shrunk_rate=float(rate[i]),
            low=float(low[i]),
            high=float(high[i]),
            percentile=float(percentile[i]),
        )
        for i, s in enumerate(shown.tolist())
    ]


def _checked(completed: ArrayLike, n: ArrayLike) -> tuple[Floats, Floats]:
    k, total = np.asarray(completed, dtype=np.float64), np.asarray(n, dtype=np.float64)
    if k.ndim != 1 or k.shape != total.shape:
        raise ValueError(f"completed {k.shape} and n {total.shape} must be lists of one length")
    wrong = ~((k >= 0) & (k <= total) & np.isfinite(total))
    if wrong.any():
        at = int(wrong.argmax())
        raise ValueError(f"completed = {k[at]:g} of n = {total[at]:g} is no count of calls")
    return k, total
