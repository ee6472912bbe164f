"""Is a skill getting better or worse? One fitted line per skill, window and metric.

Belongs here: the model of daily aggregates, its slope with interval and p-value, and the verdict
across skills. Does not: counting events into days (`sql/analyze/daily.sql`), finding the day when
something broke (`anomaly`), storing results (the assets).

The model. On the scale of its link (log-odds of completion, log seconds, log calls a day) a skill's
day t is

    level + slope * t + weekday[t] + noise[t],      noise ~ AR(1) with sd sigma, correlation rho

and the day's count scatters around it as a binomial, a Poisson or a mean of n logs does. Days thus
count by their n; neighbouring days may be alike; a weekend is not a fall. Nobody can read sigma and
rho off seven or thirty days, so they are not estimated but averaged over: every pair of a grid gets
the weight that this skill's days and the other skills of the scan give it, and slope, interval and
p-value come from that mixture. With little noise the result is the ordinary binomial test; with
much, or with runs of good and bad days, it widens by itself. `docs/statistics/trends.md` compares
this with least squares on daily rates and with a quasi-binomial fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, ndtr, ndtri

from sb_serving.stats.fdr import benjamini_hochberg

__all__ = ["METRICS", "WINDOWS", "Daily", "Metric", "Trend", "scan", "share_of_day", "with_fdr"]

Metric = Literal["completion_rate", "avg_duration_seconds", "invocation_count"]
METRICS: tuple[Metric, ...] = ("completion_rate", "avg_duration_seconds", "invocation_count")
WINDOWS = (7, 14, 30, 90)
"""Window lengths in days that are offered; `scan` takes others too."""

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

MIN_DAYS = 4
"""Days with data below which no line is fitted: three points always look like one."""
MAX_DAYS = 3_660
"""Longest window. Nobody means more, and a slip of the keyboard must not fill the memory."""
MIN_N = 10
"""Events below which no line is fitted."""
WEEKDAYS_FROM = 21
"""Days with data from which weekdays are told apart: three of each."""
HISTORY = 28
"""Days before a window shorter than that which are read for its weekdays and its noise."""

_SIGMA = 0.05 * 2.0 ** np.arange(7)
_RHO = np.array([0.0, 1 / 3, 3 / 5, 7 / 9, 15 / 17])
"""Each step doubles the noise of a long mean, which grows by (1 + rho) / (1 - rho)."""
_SIGMAS = np.concatenate([[0.0], np.tile(_SIGMA, len(_RHO))])
_RHOS = np.concatenate([[0.0], np.repeat(_RHO, len(_SIGMA))])
_WHITE = 1 + len(_SIGMA)
"""The first points of the grid, those without correlation."""
_NO_NOISE = 0.25
"""Prior weight of sigma = 0; the rest is half-Cauchy in sigma with this scale, flat in rho."""
_NOISE_SCALE = 0.3
_PRIOR_SKILLS = 10.0
"""The prior weighs as much as this many skills of the scan."""
_WEEKDAY_SD = 1.0
"""Spread of weekday effects on the link's scale; keeps a weekday without failures finite."""
_CHUNK = 1_500
"""Skills times days fitted at a time, so that the arrays stay in the processor's cache."""
_TINY = 1e-9


@dataclass(frozen=True, slots=True)
class Daily:
    """Daily aggregates: one row per skill, one column per UTC day, no gaps between days.

    Attributes:
        skills: Names, in the order of the rows, shape (S,).
        first_day: Number of the first column's day; any count of days whose multiples of 7 are
            one weekday, such as days since 1970-01-01. It is the first day of the whole record:
            a skill without calls since then was not called.
        invocations: All calls, shape (S, T).
        completed: Completed calls, shape (S, T).
        decided: Completed plus failed calls, the denominator of the completion rate.
        timed: Calls with a duration.
        seconds: Sum of their durations.
        log_seconds: Sum of the natural logs of their durations.
        log_squares: Sum of the squares of those logs.
    """

    skills: tuple[str, ...]
    first_day: int
    invocations: Floats
    completed: Floats
    decided: Floats
    timed: Floats
    seconds: Floats
    log_seconds: Floats
    log_squares: Floats

    @classmethod
    def from_rows(
        cls,
        skill_name: Sequence[str],
        day: ArrayLike,
        *,
        invocations: ArrayLike,
        completed: ArrayLike,
        decided: ArrayLike,
        timed: ArrayLike,
        seconds: ArrayLike,
        log_seconds: ArrayLike,
        log_squares: ArrayLike,
    ) -> Daily:
        """Spread rows of (skill, day) over the table; the order of rows does not matter.

        Args:
            skill_name: One name per row.
            day: One day number per row; each (skill, day) at most once.
            invocations: All calls.
            completed: Completed calls.
            decided: Completed plus failed calls.
            timed: Calls with a duration.
            seconds: Sum of their durations.
            log_seconds: Sum of the logs of their durations.
            log_squares: Sum of the squares of those logs.

        Raises:
            ValueError: Two rows for one skill and day, or a negative or missing count.
        """
        names, row = np.unique(np.asarray(skill_name, dtype=str), return_inverse=True)
        days = np.asarray(day, dtype=np.int64)
        first = int(days.min()) if len(days) else 0
        shape = (len(names), int(days.max()) - first + 1 if len(days) else 0)
        cell = row * shape[1] + (days - first)
        if np.bincount(cell).max(initial=0) > 1:
            raise ValueError("more than one row for a skill and day")

        def spread(name: str, values: ArrayLike) -> Floats:
            column = np.asarray(values, dtype=np.float64)
            if not np.isfinite(column).all() or (not name.startswith("log") and (column < 0).any()):
                raise ValueError(f"{name} holds a negative or missing value")
            table = np.zeros(shape)
            table.reshape(-1)[cell] = column
            return table

        return cls(
            skills=tuple(names.tolist()),
            first_day=first,
            invocations=spread("invocations", invocations),
            completed=spread("completed", completed),
            decided=spread("decided", decided),
            timed=spread("timed", timed),
            seconds=spread("seconds", seconds),
            log_seconds=spread("log_seconds", log_seconds),
            log_squares=spread("log_squares", log_squares),
        )


@dataclass(frozen=True, slots=True)
class Trend:
    """The line through one skill's window. Numbers are None where there is not enough data.

    Attributes:
        skill_name: The skill.
        metric: One of `METRICS`.
        days: Length of the window.
        trend: `improving`, `declining`, `stable` or `insufficient_data`; a verdict at the level
            given to `with_fdr`. Up is good for completion and volume, bad for duration.
        slope_per_day: (end_value - start_value) per day between them, in the metric's unit.
        slope_low: Lower bound of its 95 % interval.
        slope_high: Upper bound; the interval holds 0 exactly where p_value >= .05.
        start_value: Fitted value on the first day with data: a rate, mean seconds, or calls a day.
        start_low: Lower bound of the line's 95 % interval there.
        start_high: Upper bound.
        end_value: Fitted value on the last one.
        end_low: Lower bound of the line's 95 % interval there.
        end_high: Upper bound.
        change_percent: 100 * (end_value - start_value) / start_value.
        p_value: Two-sided, of no slope.
        q_value: `p_value` adjusted over the skills of the scan.
        n: Decided calls, timed calls or calls in the window.
        reason: Why there is not enough data; else None.
    """

    skill_name: str
    metric: Metric
    days: int
    trend: str
    n: int
    slope_per_day: float | None = None
    slope_low: float | None = None
    slope_high: float | None = None
    start_value: float | None = None
    start_low: float | None = None
    start_high: float | None = None
    end_value: float | None = None
    end_low: float | None = None
    end_high: float | None = None
    change_percent: float | None = None
    p_value: float | None = None
    q_value: float | None = None
    reason: str | None = None


def scan(
    daily: Daily,
    *,
    end: int,
    days: int,
    metric: Metric = "completion_rate",
    end_share: float = 1.0,
    level: float = 0.05,
) -> list[Trend]:
    """Fit every skill's trend over one window.

    A skill's result leans on the other skills of the scan in two places: how noisy days are, where
    its own days say little, and `q_value`.

    Args:
        daily: Aggregates, reaching back `HISTORY` days before the window where they can.
        end: Last day of the window, in the numbering of `daily`.
        days: Length of the window, 4 to 3,660.
        metric: What to fit.
        end_share: Share of a usual day's calls that day `end` has had time for, in (0, 1]; only
            volume needs it. See `share_of_day`.
        level: Largest q_value that is called a trend.

    Returns:
        One trend per skill, in the order of `daily.skills`.

    Raises:
        ValueError: An unknown metric, a window out of range, or a share outside (0, 1].
    """
    if metric not in METRICS:
        raise ValueError(f"metric = {metric!r} is none of {', '.join(METRICS)}")
    if not MIN_DAYS <= days <= MAX_DAYS:
        raise ValueError(f"days = {days!r} is not between {MIN_DAYS} and {MAX_DAYS}")
    if not 0 < end_share <= 1:
        raise ValueError(f"end_share = {end_share!r} is not in (0, 1]")
    cut = _cut(daily, end, days, metric, end_share)
    events = (cut.total if metric == "invocation_count" else cut.n)[:, cut.inside].sum(axis=1)
    reasons = _too_little(cut, events, days)
    trends = [
        Trend(name, metric, days, "insufficient_data", int(n), reason=reason)
        for name, n, reason in zip(daily.skills, events.tolist(), reasons, strict=True)
    ]
    ready = np.array([reason is None for reason in reasons], dtype=np.bool_)
    if ready.any():
        for s, line in zip(np.flatnonzero(ready), _fit(cut.rows(ready), metric), strict=True):
            trends[s] = replace(trends[s], reason=None, **line)
    return with_fdr(trends, level)


def with_fdr(trends: Sequence[Trend], level: float = 0.05) -> list[Trend]:
    """Adjust the p-values of one scan (one metric, one window) and set the verdicts.

    Args:
        trends: One per skill.
        level: Largest q_value that is called a trend: the share of false ones among those called.

    Returns:
        The same trends with `q_value` and `trend` set; those without a p-value are left alone.
    """
    tested = [i for i, t in enumerate(trends) if t.p_value is not None]
    q_values = benjamini_hochberg([trends[i].p_value or 0.0 for i in tested])
    out = list(trends)
    for i, q in zip(tested, q_values.tolist(), strict=True):
        slope = trends[i].slope_per_day or 0.0
        good = slope < 0 if trends[i].metric == "avg_duration_seconds" else slope > 0
        verdict = "stable" if q > level or slope == 0 else "improving" if good else "declining"
        out[i] = replace(trends[i], q_value=q, trend=verdict)
    return out


def share_of_day(before: float, whole: float, elapsed: float) -> float:
    """Share of a usual day's calls that a day which is not over has had time for.

    Args:
        before: Calls of earlier, whole days up to the same time of day.
        whole: All calls of those days.
        elapsed: Share of the last day that has passed, 0 to 1.

    Returns:
        A share in (0, 1] for `scan(end_share=...)`; few earlier calls leave it near `elapsed`.
    """
    # One made-up call for each hour of an even day, so that an hour never seen is not impossible.
    return min(max((before + 24.0 * elapsed) / (whole + 24.0), _TINY), 1.0)


@dataclass(frozen=True, slots=True)
class _Days:
    """One metric over one window and the history before it; tables have shape (S, T).

    Attributes:
        total: Completed calls, sum of logs, or calls.
        n: What `total` is out of: decided calls, timed calls, or share of a day; 0 = no data.
        inside: Days of the window, the others are history, shape (T,).
        weekday: 0 to 6, shape (T,).
        scatter: Sum of squares of the logs about their day's mean, shape (S,); durations only.
        smear: Mean seconds over exp(mean log), shape (S,); durations only, else 1.
    """

    total: Floats
    n: Floats
    inside: Bools
    weekday: NDArray[np.int64]
    scatter: Floats
    smear: Floats

    def rows(self, keep: Bools) -> _Days:
        return replace(
            self,
            total=self.total[keep],
            n=self.n[keep],
            scatter=self.scatter[keep],
            smear=self.smear[keep],
        )


def _cut(daily: Daily, end: int, days: int, metric: Metric, end_share: float) -> _Days:
    numbers = np.arange(end - days - (HISTORY if days < HISTORY else 0) + 1, end + 1)
    columns = numbers - daily.first_day
    held = (columns >= 0) & (columns < daily.invocations.shape[1])

    def take(table: Floats) -> Floats:
        out = np.zeros((len(table), len(numbers)))
        out[:, held] = table[:, columns[held]]
        return out

    total, n = take(daily.completed), take(daily.decided)
    if metric == "avg_duration_seconds":
        total, n = take(daily.log_seconds), take(daily.timed)
    elif metric == "invocation_count":
        total = take(daily.invocations)
        n = np.tile((columns >= 0).astype(np.float64), (len(total), 1))
        n[:, -1] *= end_share
    inside = numbers > end - days
    # A history too short to tell weekdays apart is of no use to the window.
    used = inside | ((n > 0).sum(axis=1) >= WEEKDAYS_FROM)[:, None]
    total, n = np.where(used, total, 0.0), np.where(used, n, 0.0)
    scatter, smear = np.zeros(len(n)), np.ones(len(n))
    if metric == "avg_duration_seconds":
        squares = np.where(used, take(daily.log_squares), 0.0)
        scatter = (squares - total**2 / np.maximum(n, 1.0)).sum(axis=1)
        calls = np.maximum(n[:, inside].sum(axis=1), 1.0)
        log_mean = total[:, inside].sum(axis=1) / calls
        smear = take(daily.seconds)[:, inside].sum(axis=1) / calls / np.exp(log_mean)
    return _Days(total, n, inside, numbers % 7, scatter, smear)


def _too_little(days: _Days, events: Floats, window: int) -> list[str | None]:
    """Why each skill cannot be fitted, or None."""
    has = (days.n > 0) & days.inside
    count = has.sum(axis=1)
    width = has.shape[1]
    span = np.where(count > 0, width - has[:, ::-1].argmax(axis=1) - has.argmax(axis=1), 0)

    def reason(s: int) -> str | None:
        if count[s] < MIN_DAYS:
            return f"{count[s]} of {window} days have data; at least {MIN_DAYS} are needed"
        if events[s] < MIN_N:
            return f"n = {events[s]:.0f}; at least {MIN_N} are needed"
        if 2 * span[s] < window:
            return f"the data spans {span[s]} of {window} days; at least half is needed"
        return None

    return [reason(s) for s in range(len(count))]


@dataclass(frozen=True, slots=True)
class _Lines:
    """Working data of the fit: one linear model per skill.

    Attributes:
        y: Response on the link's scale, 0 where there is no data, shape (S, T).
        variance: Its variance from counting alone, infinite where there is no data, shape (S, T).
        x: Level and slope of the window, 7 weekdays, level and slope of the history if there is
            one; columns that a skill does not use are 0; shape (S, T, P).
        penalty: Precision of a zero-mean normal on each coefficient, shape (P,).
    """

    y: Floats
    variance: Floats
    x: Floats
    penalty: Floats


def _design(days: _Days) -> tuple[Floats, Floats]:
    weekly = (days.n > 0).sum(axis=1) >= WEEKDAYS_FROM
    width = int(days.inside.sum())
    weekdays = (days.weekday[:, None] == np.arange(7)).astype(np.float64)
    extra = np.concatenate([weekdays, _line(~days.inside, width)], axis=1)
    extra = extra[:, extra.any(axis=0)]
    window = np.tile(_line(days.inside, width), (len(weekly), 1, 1))
    x = np.concatenate([window, weekly[:, None, None] * extra], axis=2)
    penalty = np.full(x.shape[2], _TINY)
    penalty[2:9] = _WEEKDAY_SD**-2
    return x, penalty


def _line(part: Bools, width: int) -> Floats:
    """Level and slope over `part` of the days, shape (T, 2)."""
    return np.stack([part, part * _clock(len(part), width)], axis=1)


def _clock(length: int, width: int) -> Floats:
    """Time of every day: -1/2 to 1/2 over the last `width`, so that a slope is its change."""
    return (np.arange(length) - (length - 1) + (width - 1) / 2.0) / (width - 1)


def _count_lines(days: _Days, *, rate: bool) -> _Lines:
    """Fit the binomial (`rate`) or Poisson model without noise and linearise it there.

    The likelihood carries Firth's penalty (Jeffreys' prior), so that a skill that never failed, or
    stopped failing on one day, still has a finite slope. Source: D. Firth, Biometrika 80 (1993),
    27-38; the working response is that of iteratively reweighted least squares.
    """
    x, penalty = _design(days)
    turned = x.transpose(0, 2, 1)
    share = (days.total.sum(axis=1) + 0.5) / (days.n.sum(axis=1) + (1.0 if rate else 0.0))
    beta = np.zeros((len(x), x.shape[2]))
    beta[:, 0] = np.log(share / (1.0 - share)) if rate else np.log(share)
    eta, weight, residual = np.empty((3, *days.n.shape))
    left = np.arange(len(x))
    for _ in range(100):
        of, n, total = x[left], days.n[left], days.total[left]
        at = np.clip((of @ beta[left, :, None])[..., 0], -30.0, 30.0)
        mean = expit(at) if rate else np.exp(at)
        w = np.maximum(n * mean * (1.0 - mean if rate else 1.0), 0.0)
        inverse = np.linalg.inv(turned[left] @ (of * w[:, :, None]) + np.diag(penalty))
        leverage = w * ((of @ inverse) * of).sum(axis=2)
        total = total + leverage * (0.5 - mean if rate else 0.5)
        off = np.where(n > 0, total - n * mean, 0.0)
        eta[left], weight[left], residual[left] = at, w, off
        score = (turned[left] @ off[:, :, None])[..., 0] - penalty * beta[left]
        step = (inverse @ score[:, :, None])[..., 0]
        largest = np.abs(step).max(axis=1, initial=0.0)
        # A step of more than 2 on the log scale overshoots where a rate is near 0 or 1.
        beta[left] += step * np.minimum(1.0, 2.0 / np.maximum(largest, _TINY))[:, None]
        left = left[largest >= 1e-8]
        if len(left) == 0:
            break
    seen = weight > 0
    variance = np.divide(1.0, weight, out=np.full_like(weight, np.inf), where=seen)
    y = np.where(seen, eta + residual * np.where(seen, variance, 0.0), 0.0)
    return _Lines(y, variance, x, penalty)


def _log_lines(days: _Days) -> _Lines:
    """Daily means of logs; the variance of one log comes from days and line together."""
    x, penalty = _design(days)
    mean = days.total / np.maximum(days.n, 1.0)
    inverse = np.linalg.inv(x.transpose(0, 2, 1) @ (x * days.n[:, :, None]) + np.diag(penalty))
    beta = inverse @ (x.transpose(0, 2, 1) @ (days.n * mean)[:, :, None])
    between = (days.n * (mean - (x @ beta)[..., 0]) ** 2).sum(axis=1)
    rank = (days.n * ((x @ inverse) * x).sum(axis=2)).sum(axis=1)
    spread = (days.scatter + between) / np.maximum(days.n.sum(axis=1) - rank, 1.0)
    seen = days.n > 0
    variance = np.full_like(days.n, np.inf)
    np.divide(np.maximum(spread, _TINY)[:, None], days.n, out=variance, where=seen)
    return _Lines(np.where(seen, mean, 0.0), variance, x, penalty)


@dataclass(frozen=True, slots=True)
class _Fits:
    """Every skill fitted at every point of the noise grid.

    Attributes:
        log_likelihood: Restricted log-likelihood of the grid's points, shape (S, G).
        beta: Coefficients, shape (S, G, P).
        variance: Of the combinations of them that were asked for, shape (S, G, C).
    """

    log_likelihood: Floats
    beta: Floats
    variance: Floats


def _fit_grid(lines: _Lines, asked: Floats) -> _Fits:
    """Generalised least squares with AR(1) noise on top of counting noise.

    A filter turns response and columns into innovations, which are independent, so that plain least
    squares on the innovations is the generalised fit. Source: P. de Jong, Annals of Statistics 19
    (1991), 1073-1083.

    Grid and skills lie last in the arrays: thousands of small systems are solved in the few steps
    of one, each of them one operation on long rows.

    Args:
        lines: Working data.
        asked: Combinations of the coefficients whose variance is asked for, shape (S, P, C).
    """
    skills, length, width = lines.x.shape
    squares = np.empty((width + 1, width + 1, len(_SIGMAS), skills))
    log_det = np.empty((len(_SIGMAS), skills))
    columns = np.concatenate([lines.x, lines.y[:, :, None]], axis=2)
    chunk = max(_CHUNK // length, 1)
    for start in range(0, skills, chunk):
        part = slice(start, start + chunk)
        for grid, found in (
            (slice(0, _WHITE), _white_squares(columns[part], lines.variance[part])),
            (slice(_WHITE, None), _filtered_squares(columns[part], lines.variance[part])),
        ):
            squares[:, :, grid, part], log_det[grid, part] = found
    right = np.empty((width, 1 + asked.shape[2], *log_det.shape))
    right[:, 0] = squares[:width, width]
    right[:, 1:] = asked.transpose(1, 2, 0)[:, :, None]
    normal = squares[:width, :width]
    normal[np.arange(width), np.arange(width)] += lines.penalty[:, None, None]
    solved, log_det_normal = _solve(normal, right)
    rss = squares[width, width] - (right[:, 0] * solved[:, 0]).sum(axis=0)
    variance = (right[:, 1:] * solved[:, 1:]).sum(axis=0)
    return _Fits(
        -0.5 * (log_det + log_det_normal + rss).T,
        solved[:, 0].transpose(2, 1, 0).copy(),
        variance.transpose(2, 1, 0).copy(),
    )


def _white_squares(columns: Floats, variance: Floats) -> tuple[Floats, Floats]:
    """What `_filtered_squares` gives for the grid's points without correlation: weighted sums."""
    skills, length, width = columns.shape
    total = _SIGMAS[:_WHITE, None] ** 2 + variance[:, None]
    products = (columns[..., None] * columns[:, :, None]).reshape(skills, length, width**2)
    squares = ((1.0 / total) @ products).reshape(skills, _WHITE, width, width)
    total[np.isinf(total)] = 1.0
    return squares.transpose(2, 3, 1, 0), np.log(total).sum(axis=2).T


def _filtered_squares(columns: Floats, variance: Floats) -> tuple[Floats, Floats]:
    """Products of the innovations of a Kalman filter, for the grid's points with correlation.

    Args:
        columns: Columns of the model and response, shape (S, T, K).
        variance: Of the response from counting alone, infinite without data, shape (S, T).

    Returns:
        Sums over the days of the products of every two columns' innovations over their variance,
        the second column not before the first, shape (K, K, G, S); and the log of the determinant
        of the response's covariance, shape (G, S).
    """
    skills, length, width = columns.shape
    rho, sigma = _RHO[1:, None, None], _SIGMA[:, None]
    grid = (len(rho), len(sigma), skills)
    of_innovation, kept = np.empty((2, length, *grid))
    uncertain = np.broadcast_to(sigma**2, grid)
    for t in range(length):
        np.add(uncertain, variance[:, t], out=of_innovation[t])
        np.subtract(1.0, uncertain / of_innovation[t], out=kept[t])
        uncertain = rho**2 * uncertain * kept[t] + sigma**2 * (1.0 - rho**2)
    kept *= rho
    weight = 1.0 / np.sqrt(of_innovation)
    of_innovation[np.isinf(of_innovation)] = 1.0
    # The error of the prediction is that of the day before as far as the filter kept it, and what
    # is new beyond the noise's own memory.
    turned = np.ascontiguousarray(columns.transpose(1, 2, 0))[:, :, None, None]
    new = np.repeat(turned, len(rho), axis=2)
    new[1:] -= rho * turned[:-1]
    error = np.zeros((width, *grid))
    innovations = np.empty((length, width, *grid))
    for t in range(length):
        error *= kept[t - 1]
        error += new[t]
        np.multiply(error, weight[t], out=innovations[t])
    flat = innovations.reshape(length, width, -1)
    squares = np.zeros((width, width, flat.shape[2]))
    for k in range(width):
        np.einsum("tn,tkn->kn", flat[:, k], flat[:, k:], out=squares[k, k:])
    shape = (len(rho) * len(sigma), skills)
    log_det = np.log(of_innovation).sum(axis=0)
    return squares.reshape(width, width, *shape), log_det.reshape(shape)


def _solve(matrix: Floats, right: Floats) -> tuple[Floats, Floats]:
    """Solve many small symmetric, positive definite systems at once, by elimination.

    Args:
        matrix: Upper triangles, overwritten, shape (P, P, ...).
        right: Right sides, shape (P, C, ...).

    Returns:
        The solutions, shape (P, C, ...), and the log of the determinants, shape (...).
    """
    solved = right.copy()
    log_det = np.zeros(matrix.shape[2:])
    for k in range(len(matrix)):
        pivot = matrix[k, k]
        log_det += np.log(pivot)
        for i in range(k + 1, len(matrix)):
            factor = matrix[k, i] / pivot
            matrix[i, i:] -= factor * matrix[k, i:]
            solved[i] -= factor * solved[k]
    for k in range(len(matrix) - 1, -1, -1):
        for i in range(k + 1, len(matrix)):
            solved[k] -= matrix[k, i] * solved[i]
        solved[k] /= matrix[k, k]
    return solved, log_det


def _prior() -> Floats:
    """Weight of every point of the grid before any data, shape (G,)."""
    # Points lie evenly on the log scale, where the half-Cauchy density gains a factor sigma.
    noise = np.tile(_SIGMA / (1.0 + (_SIGMA / _NOISE_SCALE) ** 2), len(_RHO))
    return np.concatenate([[_NO_NOISE], (1.0 - _NO_NOISE) * noise / noise.sum()])


def _weigh(log_likelihood: Floats) -> Floats:
    """Weight of every point of the grid for every skill, shape (S, G).

    The weights that all skills share are the prior updated by the skills (EM on a discrete
    mixture); one skill alone is left with about the prior, two hundred speak for themselves.
    """
    likelihood = np.exp(log_likelihood - log_likelihood.max(axis=1, keepdims=True))
    shared = prior = _prior()
    for _ in range(50):
        joint = likelihood * shared
        weights: Floats = joint / joint.sum(axis=1, keepdims=True)
        shared = (weights.sum(axis=0) + _PRIOR_SKILLS * prior) / (len(weights) + _PRIOR_SKILLS)
    return weights


def _tail_bounds(weights: Floats, centre: Floats, sd: Floats) -> tuple[Floats, Floats]:
    """The 2.5 % and 97.5 % points of each row's mixture of normals, to 1e-10 of its widest sd.

    By Newton's method on the normal scale, where a mixture is nearly a line; a step that leaves
    the bracket halves it instead.
    """
    mean = (weights * centre).sum(axis=1)
    around = np.sqrt((weights * (sd**2 + (centre - mean[:, None]) ** 2)).sum(axis=1))
    enough = 1e-10 * sd.max(axis=1)

    def quantile(share: float) -> Floats:
        low, high = (centre - 10.0 * sd).min(axis=1), (centre + 10.0 * sd).max(axis=1)
        at = mean + ndtri(share) * around
        for _ in range(100):
            deviate = (at[:, None] - centre) / sd
            below = (weights * ndtr(deviate)).sum(axis=1)
            density = (weights * np.exp(-0.5 * deviate**2) / sd).sum(axis=1)
            low, high = np.where(below < share, at, low), np.where(below < share, high, at)
            score = ndtri(below)
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                better = at + (ndtri(share) - score) * np.exp(-0.5 * score**2) / density
            inside = (better >= low) & (better <= high)
            before, at = at, np.where(inside, better, (low + high) / 2.0)
            if (np.abs(at - before) <= enough).all():
                break
        found: Floats = at
        return found

    return quantile(0.025), quantile(0.975)


class _Fitted(TypedDict):
    """The fields of `Trend` that come from the fit."""

    slope_per_day: float
    slope_low: float
    slope_high: float
    start_value: float
    start_low: float
    start_high: float
    end_value: float
    end_low: float
    end_high: float
    change_percent: float
    p_value: float


def _fit(days: _Days, metric: Metric) -> list[_Fitted]:
    """Fit skills that all have enough data."""
    if metric == "avg_duration_seconds":
        lines = _log_lines(days)
    else:
        lines = _count_lines(days, rate=metric == "completion_rate")
    ends = _ends(days, lines)
    fits = _fit_grid(lines, ends.asked)
    weights = _weigh(fits.log_likelihood)
    sd = np.sqrt(fits.variance)
    centre = fits.beta @ ends.asked
    slopes, sd_slope = centre[..., 0], sd[..., 0]
    below = (weights * ndtr(-slopes / sd_slope)).sum(axis=1)
    above = (weights * ndtr(slopes / sd_slope)).sum(axis=1)
    p_value = np.minimum(2.0 * np.minimum(below, above), 1.0)
    mean = np.einsum("sg,sgp->sp", weights, fits.beta)
    bounds = [_tail_bounds(weights, centre[..., i], sd[..., i]) for i in range(3)]
    return _read_off(days, lines, metric, ends, mean, bounds, p_value)


@dataclass(frozen=True, slots=True)
class _Ends:
    """Where a line begins and ends, on the link's scale.

    Attributes:
        first: First day of the window with data, an index, shape (S,).
        last: Last one, shape (S,).
        time: Time of every day of the window, shape (W,).
        week: Share of each weekday in the window's events, shape (S, 7).
        asked: The combinations of the coefficients that are the slope, the line at `first` and
            the line at `last`, weekdays averaged by `week`, shape (S, P, 3).
    """

    first: NDArray[np.int64]
    last: NDArray[np.int64]
    time: Floats
    week: Floats
    asked: Floats


def _ends(days: _Days, lines: _Lines) -> _Ends:
    inside = days.inside
    n = days.n[:, inside]
    has = n > 0
    first = has.argmax(axis=1)
    last = has.shape[1] - 1 - has[:, ::-1].argmax(axis=1)
    time = _clock(len(inside), int(inside.sum()))[inside]
    week = np.stack([n[:, days.weekday[inside] == d].sum(axis=1) for d in range(7)], axis=1)
    week /= n.sum(axis=1, keepdims=True)
    # Weekdays that a skill's model does not have are columns of zeros, not effects of zero.
    used = lines.x[:, :, 2:9].any(axis=1)
    asked = np.zeros((len(n), lines.x.shape[2], 3))
    asked[:, 1, 0] = 1.0
    for at, day in ((1, first), (2, last)):
        asked[:, 0, at], asked[:, 1, at] = 1.0, time[day]
        asked[:, 2:9, at] = week * used
    return _Ends(first, last, time, week, asked)


def _read_off(
    days: _Days,
    lines: _Lines,
    metric: Metric,
    ends: _Ends,
    beta: Floats,
    bounds: Sequence[tuple[Floats, Floats]],
    p: Floats,
) -> list[_Fitted]:
    """Bring a line from the link's scale to the metric's: ends, slope and their intervals.

    Args:
        days: The data.
        lines: Working data of the fit.
        metric: What was fitted.
        ends: Where the lines begin and end.
        beta: Coefficients, shape (S, P).
        bounds: Lower and upper bounds of the slope, the line's begin and its end, shape (S,) each.
        p: Of no slope, shape (S,).
    """
    inside, time = days.inside, ends.time
    # The line turns about its centre of weight, where level and slope vary independently.
    weight = 1.0 / lines.variance[:, inside]
    pivot = (weight * time).sum(axis=1) / weight.sum(axis=1)
    level = beta[:, 0] + beta[:, 1] * pivot

    def value(slope: Floats, day: NDArray[np.int64], shift: Floats | float = 0.0) -> Floats:
        eta = level + slope * (time[day] - pivot) + shift
        by_weekday = np.clip(eta[:, None] + beta[:, 2:9], -30.0, 30.0)
        scaled = expit(by_weekday) if metric == "completion_rate" else np.exp(by_weekday)
        averaged: Floats = (scaled * ends.week).sum(axis=1) * days.smear
        return averaged

    gap = ends.last - ends.first
    slope = beta[:, 1]
    found: dict[str, Floats] = {}
    for name, at, day in (("start", 1, ends.first), ("end", 2, ends.last)):
        centre = np.einsum("sp,sp->s", beta, ends.asked[..., at])
        found[f"{name}_value"] = value(slope, day)
        for side, bound in zip(("low", "high"), bounds[at], strict=True):
            found[f"{name}_{side}"] = value(slope, day, bound - centre)
    for side, bound in zip(("low", "high"), bounds[0], strict=True):
        found[f"slope_{side}"] = (value(bound, ends.last) - value(bound, ends.first)) / gap
    found["p_value"] = p
    if metric == "completion_rate":
        _without_contrast(days, found)
    start, end = found["start_value"], found["end_value"]
    found["slope_per_day"] = (end - start) / gap
    found["change_percent"] = 100.0 * np.divide(
        end - start, start, out=np.zeros_like(start), where=start > 0
    )
    return [
        _Fitted(**{name: float(values[s]) for name, values in found.items()})  # type: ignore[typeddict-item]
        for s in range(len(start))
    ]


def _without_contrast(days: _Days, found: dict[str, Floats]) -> None:
    """A rate of exactly 0 or 1 all along has no slope, and its own value as one bound."""
    rate = days.total[:, days.inside].sum(axis=1) / days.n[:, days.inside].sum(axis=1)
    constant = (rate == 0.0) | (rate == 1.0)
    for name in ("start", "end"):
        found[f"{name}_value"] = np.where(constant, rate, found[f"{name}_value"])
        found[f"{name}_low"] = np.where(rate == 0.0, 0.0, found[f"{name}_low"])
        found[f"{name}_high"] = np.where(rate == 1.0, 1.0, found[f"{name}_high"])
    found["slope_low"] = np.where(constant, np.minimum(found["slope_low"], 0.0), found["slope_low"])
    found["slope_high"] = np.where(
        constant, np.maximum(found["slope_high"], 0.0), found["slope_high"]
    )
    found["p_value"] = np.where(constant, 1.0, found["p_value"])
