"""How far scan windows of one metric are from their expectation, judged by the past alone.

Belongs here: the dispersion of windows of each length, and the p-value of every window. Does not:
the baseline of an hour (`seasonal`), what other skills suggest (`shared_shocks`), sums
(`window_sums`), tails (`tails`, `conformal`), events and prices (`scan`), rows for the user
(`anomaly`).

Two expectations are tried for each window: the seasonal baseline, and the same moved by what other
skills and the last days suggest. The second costs a factor of two and is used only where it
explains a material part of the past.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sb_serving.stats.conformal import (
    Tail,
    exponential,
    pool_tails,
    square_of_normal,
    tail_of,
    tail_p,
)
from sb_serving.stats.pooling import pooled
from sb_serving.stats.scan import PRICE, SEPARATE, WINDOWS, Candidates, events
from sb_serving.stats.seasonal import COUNT, RATE, VALUE, Family
from sb_serving.stats.shared_shocks import SharedShocks, learned_weights
from sb_serving.stats.tails import attained_levels, beta_binomial_p, negative_binomial_p
from sb_serving.stats.window_sums import (
    Panel,
    Past,
    Sums,
    blocks,
    hourly_sums,
    thinning,
    window_sums,
)

__all__ = ["LARGEST_P", "Judged", "judge_windows"]

Floats: TypeAlias = NDArray[np.float64]
Flags: TypeAlias = NDArray[np.bool_]

LARGEST_P = 0.2
"""No window with a larger p is ever a candidate, whatever false discovery rate is asked for."""

WORTH_EXACT = 1.2
"""Windows within this many sd of their expectation cannot be candidates; their p stays 1."""

TRIM_SD = 4.0
"""Past windows beyond this many sd are anomalies themselves and left out of the dispersion ..."""

MAX_TRIMMED = 0.025
"""... unless more than this share of a skill's windows are: then that is how the skill is."""

ALARM_P = 1e-4
"""Hours of events with a smaller p are no example of the past for the days after them ..."""

MAX_ALARMED = 0.05
"""... unless more than this share of a skill's hours are."""

MAX_RHO = 0.9
"""Largest correlation of two invocations of a window that the beta-binomial is given."""

TAIL_CAUTION = 9.6
"""Added relative width of an excess variance estimated from nu windows is this / nu: where the
normal tail is 1e-5, Student's t with nu degrees of freedom equals a normal so much wider."""

LEVELS = np.logspace(-9.0, -1.0, 49)
"""Levels at which the true size of the lattice tests is tabulated."""


SIZE_SAMPLE = 300
"""Windows per block kept for tabulating the true size."""


@dataclass(frozen=True)
class Judged:
    """Windows that may be anomalies, and the size of the search.

    Attributes:
        candidates: Windows with a p small enough.
        tests: Hours in which a window was judged.
        null_p: For each candidate the chance, per judged hour, of a chance event as strong.
    """

    candidates: Candidates
    tests: int
    null_p: Floats


@dataclass(frozen=True)
class _Tried:
    """One way of judging the windows that end in a block of hours.

    Attributes:
        shift: Of the baseline on the link scale, shape (skills, hours).
        below: Whether less was seen than expected, same shape.
        p: P-value of each window, 1 where none was needed, same shape.
        windows: How many were judged.
        sample: Weight, mean and dispersion of some of them, for the true size of the test.
    """

    shift: Floats
    below: Flags
    p: Floats
    windows: int
    sample: tuple[Floats, Floats, Floats] | None = None


def judge_windows(panel: Panel, largest_p: float = LARGEST_P, refit_days: int = 1) -> Judged:
    """Test every scan window that ends in a scored hour.

    Args:
        panel: The metric.
        largest_p: Windows with a larger p are no candidates; never above `LARGEST_P`.
        refit_days: See `blocks`.

    Returns:
        Candidates, and what they are to be compared with.
    """
    family = panel.baseline.family
    hourly = hourly_sums(panel)
    shocks = None if family is VALUE else SharedShocks.of(hourly, family)
    by_length = {length: window_sums(hourly, length) for length in WINDOWS}
    alarmed = np.zeros(hourly.valid.shape, dtype=bool)
    found: list[Candidates] = []
    tried: dict[tuple[int, float], list[_Tried]] = {}
    for past_hours, hours in blocks(hourly.scored, refit_days):
        known = _few(alarmed, past_hours)
        part: list[Candidates] = []
        for length, sums in by_length.items():
            past = Past.of(sums, past_hours, known)
            now = past.enough(sums.where((slice(None), hours)))
            if shocks is None:
                ways = [_judge_values(past, now)]
            else:
                ways = _judge_counts(past, now, shocks.suggestions(sums), hours, family)
            price = PRICE[length] * len(ways)
            tried.setdefault((length, price), []).extend(ways)
            part += [_candidates(way, length, price, hours.start, largest_p) for way in ways]
        _mark(alarmed, Candidates.joined(part))
        found += part
    expected = np.zeros(len(LEVELS))
    for (length, price), ways in tried.items():
        expected += SEPARATE[length] * _reached(LEVELS / price, ways, family)
    candidates = Candidates.joined(found)
    tests = int(hourly.scored.sum())
    return Judged(candidates, tests, _null_p(candidates.p, expected, tests))


def _mark(alarmed: Flags, found: Candidates) -> None:
    """Note the hours of events that are as good as reported."""
    picked, _ = events(found)
    for at in picked[found.p[picked] <= ALARM_P]:
        stop = found.last[at] + 1
        alarmed[found.skill[at], stop - found.length[at] : stop] = True


def _few(alarmed: Flags, past_hours: slice) -> Flags:
    """The alarmed hours of skills that have few: what happens often is how a skill is."""
    share = alarmed[:, past_hours].mean(axis=1) if past_hours.stop > past_hours.start else 0.0
    return np.asarray(alarmed & (np.asarray(share) <= MAX_ALARMED)[..., None])


def _candidates(way: _Tried, length: int, price: float, first: int, largest_p: float) -> Candidates:
    at = np.nonzero(way.p * price <= min(largest_p, LARGEST_P))
    last = at[1] + first
    return Candidates(
        skill=at[0],
        last=last,
        length=np.full(len(last), length),
        p=way.p[at] * price,
        window_p=way.p[at],
        below=way.below[at],
        shift=way.shift[at],
    )


def _shifted(sums: Sums, shift: Floats, family: Family) -> Sums:
    """The sums with every window's mean moved by `shift` on the link scale."""
    weight = np.where(sums.weight > 0, sums.weight, 1.0)
    mean = family.unlink(family.link(sums.expected / weight) + shift)
    return replace(sums, expected=sums.weight * mean, information=sums.weight * family.slope(mean))


def _variance_parts(sums: Sums, family: Family) -> tuple[Floats, Floats]:
    """Variance without dispersion, and what each unit of dispersion adds."""
    if family is RATE:
        return sums.information, sums.information * np.maximum(sums.weight - 1.0, 0.0)
    return sums.expected, sums.expected**2


def _variance(sums: Sums, dispersion: Floats, family: Family) -> Floats:
    """Variance of the residual of each window, at least a trifle."""
    base, extra = _variance_parts(sums, family)
    return np.maximum(base + dispersion * extra + sums.slot, 1e-12)


def _window_dispersion(past: Past, family: Family) -> Floats:
    """Dispersion of windows of this length by moments, shape (skills, 1).

    The past residuals are forecasts gone wrong, so whatever the baseline misses (drift, a wrong
    shape, hours that move together) is in here. Squares are clipped at `TRIM_SD` of the current
    estimate; then, where few are that large, they are left out altogether, being anomalies.
    """
    base, extra = _variance_parts(past.sums, family)
    certain = base + past.sums.slot
    squares = past.sums.residual**2
    overlap = thinning(past.sums.length) / past.sums.length
    windows = np.maximum(past.by_skill(np.ones(len(squares))), 1.0)
    dispersion = np.full(past.skills, 2.0 * family.prior)
    for step in range(8):
        variance = np.maximum(certain + dispersion[past.skill] * extra, 1e-12)
        # The variance of a squared residual: 2 V^2 of a normal, V more of a rare count.
        pull = overlap * extra / (2.0 * variance**2 + variance)
        limit = TRIM_SD**2 * variance
        outside = squares > limit
        if step == 4:
            few = past.by_skill(outside.astype(np.float64)) / windows <= MAX_TRIMMED
        if step >= 4:
            pull[outside & few[past.skill]] = 0.0
        evidence = past.by_skill(pull * extra)
        moments = past.by_skill(pull * (np.minimum(squares, limit) - certain))
        dispersion, _ = pooled(
            moments / np.maximum(evidence, 1e-12), evidence, family.prior, 1.0 / family.prior**2
        )
        dispersion = np.clip(dispersion, 0.0, MAX_RHO if family is RATE else np.inf)
    return dispersion[:, None]


def _judge_counts(
    past: Past, now: Sums, suggestions: Floats, hours: slice, family: Family
) -> list[_Tried]:
    """Judge a block by the plain expectation and, where it is material, by the adjusted one."""
    dispersion = _window_dispersion(past, family)
    ways = [_way(past, now, np.zeros(now.weight.shape), dispersion, family)]
    suggested = suggestions[:, past.skill, past.last]
    sd = np.sqrt(_variance(past.sums, dispersion[past.skill, 0], family))
    weights = learned_weights(past, suggested, sd)
    if weights is not None:
        shift = np.tensordot(weights, suggestions[..., hours], 1)
        past = replace(past, sums=_shifted(past.sums, weights @ suggested, family))
        dispersion = _window_dispersion(past, family)
        ways.append(_way(past, _shifted(now, shift, family), shift, dispersion, family))
    return ways


def _way(past: Past, now: Sums, shift: Floats, dispersion: Floats, family: Family) -> _Tried:
    wide = dispersion * (1.0 + TAIL_CAUTION / np.maximum(past.side_by_side(), 1.0))[:, None]
    tried = _count_p(now, shift, wide, family)
    if family is not COUNT:
        return tried
    spikes = past.sums.valid & (past.sums.residual > 0)  # drops need no such care
    past_tried = _count_p(past.sums, np.zeros(1), wide[past.skill, 0], family, scored=spikes)
    return _calibrated(now, tried, past, past_tried)


def _count_p(
    now: Sums, shift: Floats, dispersion: Floats, family: Family, *, scored: Flags | None = None
) -> _Tried:
    """Two-sided p of each window under the overdispersed count model."""
    if scored is not None:
        now = replace(now, scored=scored)
    _, extra = _variance_parts(now, family)
    effective = dispersion + now.slot / np.maximum(extra, 1e-12) * (extra > 0)
    effective = np.minimum(effective, MAX_RHO) if family is RATE else effective
    variance = _variance(now, dispersion, family)
    weight = np.where(now.scored, now.weight, 1.0)
    mean = np.where(now.scored, now.expected / weight if family is RATE else now.expected, 0.5)
    mean = np.clip(mean, 1e-9, 1.0 - 1e-9 if family is RATE else np.inf)
    p = np.ones(mean.shape)
    far = now.scored & (now.residual**2 > WORTH_EXACT**2 * variance)
    if family is RATE:
        p[far], _ = beta_binomial_p(now.total[far], weight[far], mean[far], effective[far])
    else:
        p[far], _ = negative_binomial_p(now.total[far], mean[far], effective[far])
    at = np.flatnonzero(now.scored)
    at = at[:: max(len(at) // SIZE_SAMPLE, 1)]
    size = weight if family is RATE else mean
    sample = (size.ravel()[at], mean.ravel()[at], effective.ravel()[at])
    return _Tried(shift, now.residual < 0, p, int(now.scored.sum()), sample)


def _calibrated(now: Sums, tried: _Tried, past: Past, past_tried: _Tried) -> _Tried:
    """The p-values, those of spikes no smaller than their rank in the skill's own past says.

    Calls come in bursts that no count distribution has the tail of. Past spikes are scored by
    -log p; were the model right, that tail would be exponential and little would change. A drop
    ends at zero and needs no such care.
    """
    p = tried.p.copy()
    spike = ~tried.below & now.scored & (tried.p < 1.0)
    score = np.where(past_tried.below, 0.0, -np.log(np.maximum(past_tried.p, 1e-300)))
    rows = np.flatnonzero(spike.any(axis=1))
    for row, tail in zip(rows, _tails(past, score, exponential, rows), strict=True):
        at = spike[row]
        mine = tail_p(tail, -np.log(np.maximum(p[row, at], 1e-300)))
        p[row, at] = np.maximum(p[row, at], np.minimum(2.0 * mine, 1.0))
    return replace(tried, p=p)


def _tails(
    past: Past, score: Floats, usual: Callable[[float], float], rows: NDArray[np.int64]
) -> list[Tail]:
    """Tails of the past scores of some skills, steadied by each other."""
    bounds = np.searchsorted(past.skill, [rows, rows + 1])
    together = -(-past.sums.length // thinning(past.sums.length))
    return pool_tails(
        [tail_of(score[begin:stop], usual, together=together) for begin, stop in bounds.T]
    )


def _judge_values(past: Past, now: Sums) -> _Tried:
    """P of each window's absolute deviation by its rank in the skill's own past."""
    p = np.ones(now.scored.shape)
    rows = np.flatnonzero(now.scored.any(axis=1))
    tails = _tails(past, _score(past.sums), square_of_normal, rows)
    for row, tail in zip(rows, tails, strict=True):
        judged = now.scored[row]
        p[row, judged] = tail_p(tail, _score(now)[row, judged])
    return _Tried(np.zeros(p.shape), now.residual < 0, p, int(now.scored.sum()))


def _score(sums: Sums) -> Floats:
    """Squared deviation by its precision: of normal values its tail is exponential."""
    return np.asarray(sums.residual**2 / np.maximum(sums.weight, 1e-12))


def _reached(levels: Floats, ways: list[_Tried], family: Family) -> Floats:
    """Expected number of null windows at or below each level, by the true size of their tests."""
    windows = sum(way.windows for way in ways)
    samples = [way.sample for way in ways if way.sample is not None]
    if not samples:
        return windows * levels
    columns = [np.concatenate(column) for column in zip(*samples, strict=True)]
    return windows * attained_levels(levels, *columns, bounded=family is RATE)


def _null_p(p: Floats, expected: Floats, tests: int) -> Floats:
    """Expected chance events per judged hour with a p as small as each given one."""
    if tests == 0 or len(p) == 0:
        return np.ones(len(p))
    expected = np.maximum.accumulate(np.maximum(expected, 1e-300))
    inside = np.exp(np.interp(np.log(np.maximum(p, 1e-300)), np.log(LEVELS), np.log(expected)))
    beyond = expected[0] * p / LEVELS[0]
    return np.minimum(np.where(p < LEVELS[0], beyond, inside) / tests, 1.0)
