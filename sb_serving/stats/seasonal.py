"""What an hour of a skill is expected to look like, from its own past only.

Belongs here: a rolling baseline by hour of day, day of week and hour of week with shrinkage, for
rates, counts and values alike. Does not: judging an hour against its baseline (`anomaly`), nor
trends over weeks (`trend`).

Every day is predicted from a table of the 168 hours of a week, filled by the days before it. Four
effects are laid on each other: hour of day, day of week, hour of day on weekdays and weekends,
hour of week. Each is shrunk by the share of its spread that is more than noise (a moment estimate
per skill and effect), so a skill without a daily shape gets a flat baseline and pays nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

__all__ = ["COUNT", "RATE", "VALUE", "Baseline", "Family", "rolling_baseline"]

Floats: TypeAlias = NDArray[np.float64]

HALF_LIFE_DAYS = 28.0
"""Weight of a day in the table halves in this time: four weeks fill it, a level shift heals."""

CLIP_SD = 3.5
"""Totals enter the table clipped to this many sd of their own prediction, so that an outage does
not become part of what is expected."""

TRIM_SD = 4.0
"""Residuals beyond this many sd are left out of the running dispersion."""


@dataclass(frozen=True)
class Family:
    """How totals of one kind vary around their mean.

    Attributes:
        link: Mean to the scale on which effects add up.
        unlink: The way back.
        slope: Derivative of the mean by the link, at a mean.
        noise: Variance of a table cell's mean, given its mean, weight, dispersion and the size
            of a typical hour.
        variance: Variance of an hour's total, given weight, mean and dispersion.
        evidence: Numerator and denominator of the moment estimate of the dispersion, by hour,
            given weight, mean and residual of the total.
        prior: Dispersion before anything is known.
        pseudo: Total and weight added to all that was seen, so that a skill that never failed
            may yet fail.
    """

    link: Callable[[Floats], Floats]
    unlink: Callable[[Floats], Floats]
    slope: Callable[[Floats], Floats]
    noise: Callable[[Floats, Floats, Floats, Floats], Floats]
    variance: Callable[[Floats, Floats, Floats], Floats]
    evidence: Callable[[Floats, Floats, Floats], tuple[Floats, Floats]]
    prior: float
    pseudo: tuple[float, float]


def _rate_evidence(n: Floats, mean: Floats, residual: Floats) -> tuple[Floats, Floats]:
    trials = np.maximum(n, 1.0)
    binomial = n * mean * (1.0 - mean)
    return (residual**2 - binomial) / trials, binomial * np.maximum(n - 1.0, 0.0) / trials


def _count_evidence(exposure: Floats, mean: Floats, residual: Floats) -> tuple[Floats, Floats]:
    expected = exposure * mean
    return (residual**2 - expected) / (1.0 + expected), expected**2 / (1.0 + expected)


def _value_evidence(weight: Floats, mean: Floats, residual: Floats) -> tuple[Floats, Floats]:
    del mean
    seen = (weight > 0).astype(np.float64)
    return seen * residual**2 / np.where(weight > 0, weight, 1.0), seen


RATE = Family(
    link=lambda mean: logit(np.clip(mean, 1e-9, 1.0 - 1e-9)),
    unlink=expit,
    slope=lambda mean: mean * (1.0 - mean),
    noise=lambda mean, weight, rho, size: (
        mean * (1.0 - mean) * (1.0 + np.maximum(size - 1.0, 0.0) * rho) / weight
    ),
    variance=lambda n, mean, rho: n * mean * (1.0 - mean) * (1.0 + np.maximum(n - 1.0, 0.0) * rho),
    evidence=_rate_evidence,
    prior=0.02,
    pseudo=(0.5, 1.0),
)
"""Totals are successes, weights are trials; effects add up as log-odds; dispersion is rho."""

COUNT = Family(
    link=lambda mean: np.log(np.maximum(mean, 1e-9)),
    unlink=np.exp,
    slope=lambda mean: mean,
    noise=lambda mean, weight, alpha, size: (mean + alpha * mean**2) / weight,
    variance=lambda exposure, mean, alpha: exposure * mean + alpha * (exposure * mean) ** 2,
    evidence=_count_evidence,
    prior=0.25,
    pseudo=(0.5, 0.0),
)
"""Totals are counts, weights are hours watched (0 or 1); effects multiply; dispersion is alpha."""

VALUE = Family(
    link=lambda mean: mean,
    unlink=lambda link: link,
    slope=np.ones_like,
    noise=lambda mean, weight, sigma2, size: np.ones_like(mean) * sigma2 / weight,
    variance=lambda weight, mean, sigma2: weight * sigma2,
    evidence=_value_evidence,
    prior=0.25,
    pseudo=(0.0, 0.0),
)
"""Totals are weighted sums of values, weights are precisions; dispersion is sigma^2."""


@dataclass(frozen=True)
class Baseline:
    """Predictions for each skill and hour, made before the hour's day began.

    Attributes:
        mean: Expected rate, count or value, shape (skills, hours); NaN before the first day.
        link_variance: Variance of its estimate on the link scale, same shape.
        family: What the totals are.
    """

    mean: Floats
    link_variance: Floats
    family: Family


def rolling_baseline(
    weight: Floats, total: Floats, family: Family, *, first_weekday: int
) -> Baseline:
    """Predict every hour from the days before its own.

    Args:
        weight: Trials, hours watched or precisions, shape (skills, hours); hours is a multiple
            of 24 and hour 0 is midnight.
        total: Successes, counts or weighted sums, same shape; 0 where weight is 0.
        family: `RATE`, `COUNT` or `VALUE`.
        first_weekday: Day of the week of hour 0; Monday is 0.

    Returns:
        The predictions.
    """
    skills, hours = weight.shape
    mean = np.full((skills, hours), np.nan)
    link_variance = np.full((skills, hours), np.nan)
    keep = 0.5 ** (1.0 / HALF_LIFE_DAYS)
    table_weight = np.zeros((skills, 7, 24))
    table_total = np.zeros((skills, 7, 24))
    size_sums = np.zeros((2, skills))
    evidence = np.zeros((2, skills, 1))
    for day in range(hours // 24):
        now = slice(24 * day, 24 * day + 24)
        weekday = (first_weekday + day) % 7
        w, x = weight[:, now], total[:, now]
        if day and table_weight.any():
            dispersion = _dispersion(evidence, family)
            size = (size_sums[1] / np.maximum(size_sums[0], 1e-12))[:, None, None]
            m, v = _week(table_weight, table_total, dispersion[:, :, None], size, family)
            mean[:, now], link_variance[:, now] = m[:, weekday], v[:, weekday]
            x, seen = _winsorised(w, x, mean[:, now], link_variance[:, now], dispersion, family)
            evidence = evidence * keep + seen
        table_weight *= keep
        table_total *= keep
        table_weight[:, weekday] += w
        table_total[:, weekday] += x
        size_sums = size_sums * keep + np.stack([w.sum(axis=1), (w * w).sum(axis=1)])
    return Baseline(mean, link_variance, family)


def _dispersion(evidence: Floats, family: Family) -> Floats:
    """Moment estimate per skill, held near the prior until a few units of evidence are in."""
    estimate = (evidence[0] + 5.0 * family.prior) / (evidence[1] + 5.0)
    return np.asarray(np.maximum(estimate, 1e-12))


def _winsorised(
    weight: Floats,
    total: Floats,
    mean: Floats,
    link_variance: Floats,
    dispersion: Floats,
    family: Family,
) -> tuple[Floats, Floats]:
    """A day's totals clipped to what was thinkable, and its evidence on the dispersion."""
    known = np.isfinite(mean) & (weight > 0)
    m = np.where(known, mean, 0.5)
    slot = np.where(known, (weight * family.slope(m)) ** 2 * link_variance, 0.0)
    sd = np.sqrt(family.variance(weight, m, dispersion) + slot)
    residual = np.where(known, total - weight * m, 0.0)
    usable = known & (np.abs(residual) <= TRIM_SD * sd)
    up, down = family.evidence(weight, m, residual)
    seen = np.stack([np.where(usable, part, 0.0).sum(axis=1, keepdims=True) for part in (up, down)])
    clipped = weight * m + np.clip(residual, -CLIP_SD * sd, CLIP_SD * sd)
    return np.where(known, clipped, total), seen


def _week(
    weight: Floats, total: Floats, dispersion: Floats, size: Floats, family: Family
) -> tuple[Floats, Floats]:
    """Mean and link variance of the 168 hours of a week, shape (skills, 7, 24) each."""
    pseudo_total, pseudo_weight = family.pseudo
    all_weight = np.maximum(weight.sum(axis=(1, 2), keepdims=True) + pseudo_weight, 1e-12)
    overall = (total.sum(axis=(1, 2), keepdims=True) + pseudo_total) / all_weight
    spread = family.noise(overall, all_weight, dispersion, size) / family.slope(overall) ** 2
    link = np.broadcast_to(family.link(overall), weight.shape)
    least, most = family.link(np.array([-np.inf, np.inf]))
    mean = np.broadcast_to(overall, weight.shape)
    variance = np.broadcast_to(spread, weight.shape)
    w, seen, expected = (x.sum(axis=1, keepdims=True) for x in (weight, total, weight * mean))
    shift, spread = _wave(w, seen, expected, dispersion, size, family)
    link, variance = np.clip(link + shift, least, most), variance + spread
    for pooled, spread_out in _EFFECTS:
        mean = family.unlink(link)
        w, seen, expected = pooled(weight), pooled(total), pooled(weight * mean)
        shift, spread = _shrunk_shift(w, seen, expected, dispersion, size, family)
        link = np.clip(link + spread_out(shift), least, most)
        variance = variance + spread_out(spread)
    return family.unlink(link), variance


def _differences(
    weight: Floats,
    seen: Floats,
    expected: Floats,
    dispersion: Floats,
    size: Floats,
    family: Family,
) -> tuple[Floats, Floats, Floats]:
    """Mean of each group, its difference on the link scale, and the precision of that."""
    there = weight > 0
    w = np.where(there, weight, 1.0)
    mean = np.where(there, expected / w, family.unlink(np.zeros_like(w)))
    slope = family.slope(mean)
    noise = family.noise(mean, w, dispersion, size) / slope**2
    difference = np.where(there, (seen / w - mean) / slope, 0.0)
    return mean, difference, np.where(there, 1.0 / noise, 0.0)


def _wave(
    weight: Floats,
    seen: Floats,
    expected: Floats,
    dispersion: Floats,
    size: Floats,
    family: Family,
) -> tuple[Floats, Floats]:
    """Shift of each hour of day along two sine waves, and what stays uncertain about it.

    Most daily shapes are smooth: four numbers fit them with a sixth of the noise of 24. The fit
    is shrunk by the share of its chi-square that four numbers reach by chance.
    """
    _, difference, precision = _differences(weight, seen, expected, dispersion, size, family)
    precision, difference = precision[:, 0], difference[:, 0]
    gram = np.einsum("sh,ih,jh->sij", precision, _WAVES, _WAVES)
    pull = np.einsum("sh,ih->si", precision * difference, _WAVES)
    inverse = np.linalg.inv(gram + 1e-9 * np.eye(len(_WAVES)))
    fit = np.einsum("sij,sj->si", inverse, pull)
    chi2 = np.maximum((fit * pull).sum(axis=1), 1e-12)
    keep = np.maximum(1.0 - len(_WAVES) / chi2, 0.0)[:, None]
    spread = np.einsum("ih,sij,jh->sh", _WAVES, inverse, _WAVES)
    return (keep * (fit @ _WAVES))[:, None], (keep * np.where(keep > 0, spread, 0.0))[:, None]


def _shrunk_shift(
    weight: Floats,
    seen: Floats,
    expected: Floats,
    dispersion: Floats,
    size: Floats,
    family: Family,
) -> tuple[Floats, Floats]:
    """Shift of each group on the link scale, and what stays uncertain about it.

    The spread of the groups beyond noise is DerSimonian and Laird's moment estimate; each group
    keeps the share of its difference that this spread is of the total.
    """
    there = weight > 0
    w = np.where(there, weight, 1.0)
    mean, difference, precision = _differences(weight, seen, expected, dispersion, size, family)
    total = np.maximum(precision.sum(axis=(1, 2), keepdims=True), 1e-300)
    centre = (precision * difference).sum(axis=(1, 2), keepdims=True) / total
    q = (precision * (difference - centre) ** 2).sum(axis=(1, 2), keepdims=True)
    groups = there.sum(axis=(1, 2), keepdims=True)
    room = total - (precision**2).sum(axis=(1, 2), keepdims=True) / total
    spread = np.where(groups > 1, np.maximum(q - (groups - 1), 0.0) / np.maximum(room, 1e-300), 0.0)
    keep = spread * precision / (1.0 + spread * precision)
    shifted = mean + keep * np.where(there, seen / w - mean, 0.0)
    shift = np.where(there, family.link(shifted) - family.link(mean), 0.0)
    left = keep * family.noise(shifted, w, dispersion, size) / family.slope(shifted) ** 2
    return shift, np.where(there, left, spread)


def _same(table: Floats) -> Floats:
    return table


def _weekdays_and_weekend(table: Floats) -> Floats:
    days = table[:, :5].sum(axis=1, keepdims=True), table[:, 5:].sum(axis=1, keepdims=True)
    return np.concatenate(days, axis=1)


_WAVES = np.array(
    [turn(2.0 * np.pi * beat * np.arange(24) / 24) for beat in (1, 2) for turn in (np.cos, np.sin)]
)

_EFFECTS: tuple[tuple[Callable[[Floats], Floats], Callable[[Floats], Floats]], ...] = (
    (lambda table: table.sum(axis=1, keepdims=True), _same),
    (lambda table: table.sum(axis=2, keepdims=True), _same),
    (_weekdays_and_weekend, lambda groups: groups[:, [0, 0, 0, 0, 0, 1, 1]]),
    (_same, _same),
)
"""Sum a (skills, 7, 24) table over the hours of each group, and lay groups back on the week."""
