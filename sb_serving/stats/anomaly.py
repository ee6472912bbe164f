"""Anomalies: windows of 1 to 24 hours in which a skill leaves what is expected, and lasting falls.

Belongs here: the question and the answer: hourly counts of many skills in, one row per event out,
and for every skill and metric whether it could be judged. Does not: the parts of the method
(`seasonal` the expectation, `window_model` the p-value of a window, `scan` windows to events,
`lasting` falls of more than a day, `fdr` the level), what becomes of the rows over time
(`anomaly_lifecycle`), and 'since when, and what moved with it' (`changepoint`, `coincidence`).

Every hour is judged by the hours before its own day. docs/statistics/anomalies.md has the method,
what it was compared with, and how well it does.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri_exp

from sb_serving.stats.fdr import benjamini_hochberg
from sb_serving.stats.lasting import Lasting, lasting_falls
from sb_serving.stats.scan import Candidates, events
from sb_serving.stats.seasonal import COUNT, RATE, VALUE, rolling_baseline
from sb_serving.stats.window_model import Judged, judge_windows
from sb_serving.stats.window_sums import Panel

__all__ = [
    "METRICS",
    "Anomaly",
    "AnomalyReport",
    "HourlyCounts",
    "Metric",
    "MetricStatus",
    "find_anomalies",
]

Floats: TypeAlias = NDArray[np.float64]
Metric: TypeAlias = Literal["completion", "volume", "duration"]
Span: TypeAlias = tuple[datetime, datetime]
AnomalyType: TypeAlias = Literal["drop", "spike", "pattern_shift"]

METRICS: tuple[Metric, ...] = ("completion", "volume", "duration")

BUDGET: dict[Metric, float] = {"completion": 2.0, "volume": 1.0, "duration": 1.0}
"""Shares of the false discovery rate when several metrics are judged together. Each metric is a
family of its own, so that a noisy one cannot loosen the level of the others; completion, the metric
that people act on, gets as much as the other two."""

HISTORY_DAYS = 56
"""Days of history used before `score_from`: eight of each weekday."""

ENOUGH_HISTORY: dict[Metric, tuple[int, int]] = {
    "completion": (7 * 24, 50),
    "volume": (14 * 24, 50),
    "duration": (24, 24),
}
"""What a skill needs before it is judged: hours since its first data, and how much of it (decided
invocations, invocations, hours with a duration)."""

AMOUNT_UNIT: dict[Metric, str] = {
    "completion": "decided invocations",
    "volume": "invocations",
    "duration": "hours with a duration",
}

LASTING_PRICE = 10.0
"""Factor on the p-value of a lasting fall: together they get a tenth of the rate of the windows."""

SAME_NUMBER = 0.2
"""A drop and a spike are a shift when their calls together differ less than this from expected."""


@dataclass(frozen=True)
class HourlyCounts:
    """One entry per skill and hour, any order; hours without an entry had no invocation.

    Attributes:
        skill: Index into the list of names.
        hour: Hours since 1970-01-01 00:00 UTC.
        decided: Invocations that completed or failed.
        completed: Those that completed.
        volume: All invocations.
        duration_n: Invocations with a known duration.
        duration_sum: Their durations in seconds, added up.
    """

    skill: NDArray[np.int64]
    hour: NDArray[np.int64]
    decided: NDArray[np.int64]
    completed: NDArray[np.int64]
    volume: NDArray[np.int64]
    duration_n: NDArray[np.int64]
    duration_sum: Floats


@dataclass(frozen=True, slots=True)
class Anomaly:
    """One event of one skill and metric.

    Attributes:
        skill_name: The skill.
        metric: `completion`, `volume` or `duration`.
        anomaly_type: `drop` or `spike`; `pattern_shift` where calls moved to other hours while
            their number stayed.
        window_start: Start of the first hour, UTC.
        window_end: End of the last hour, UTC, 1 to 24 hours later: the strongest window, without
            the hours at its ends that are not part of it.
        n: Decided invocations, invocations, or invocations with a duration in the window.
        baseline_value: Expected completion rate, number of calls, or mean duration in seconds.
        observed_value: The same as it was.
        deviation_score: Normal quantile of the window's p-value, negative for a drop: a z-score
            that means the same for 3 calls and for 3,000.
        p_value: Chance, per judged hour, of a chance event as strong, the choice among windows
            included.
        q_value: Least false discovery rate at which the event is reported.
    """

    skill_name: str
    metric: Metric
    anomaly_type: AnomalyType
    window_start: datetime
    window_end: datetime
    n: int
    baseline_value: float
    observed_value: float
    deviation_score: float
    p_value: float
    q_value: float


@dataclass(frozen=True, slots=True)
class MetricStatus:
    """Whether a skill could be judged.

    Attributes:
        skill_name: The skill.
        metric: The metric.
        hours_judged: Hours in which a window was tested.
        reason: Why there is no answer; None where there is one.
    """

    skill_name: str
    metric: Metric
    hours_judged: int
    reason: str | None


@dataclass(frozen=True, slots=True)
class AnomalyReport:
    """All that one search found.

    Attributes:
        anomalies: Events with a q-value of at most q, smallest p first.
        spans: For each event its likeliest first and last moment, UTC: an event that goes on for
            days is one row, whose own window is a day at most.
        statuses: One entry per skill and metric.
    """

    anomalies: tuple[Anomaly, ...]
    spans: tuple[Span, ...]
    statuses: tuple[MetricStatus, ...]


def find_anomalies(
    names: Sequence[str],
    counts: HourlyCounts,
    *,
    score_from: int,
    end: int,
    q: float = 0.05,
    metrics: Sequence[Metric] = METRICS,
    lasting_from: int | None = None,
    refit_days: int = 1,
) -> AnomalyReport:
    """Find the windows in which skills leave their seasonal, overdispersed expectation.

    A fall of the completion rate that has lasted for days is found too where no single window
    shows it; windows inside it are part of the same event.

    Args:
        names: Skill names; `counts.skill` points into them.
        counts: What happened, by skill and hour.
        score_from: First hour to judge; hours before it are history only.
        end: First hour not to judge: the hour that is not over yet.
        q: False discovery rate over all events returned, in (0, 1].
        metrics: What to judge; the rate is shared among them.
        lasting_from: First hour at which a lasting fall may have begun; `score_from` if not given.
        refit_days: Every how many days the spread of windows and what skills share is learned
            anew; the baseline of an hour is of the day before in any case.

    Returns:
        The events, and for each skill and metric whether it could be judged.

    Raises:
        ValueError: A parameter or a count is impossible; the message names it.
    """
    _check(names, counts, score_from, end, q, metrics)
    budget = {metric: BUDGET[metric] / sum(BUDGET[m] for m in metrics) for metric in metrics}

    def judge(metric: Metric) -> tuple[list[tuple[Anomaly, Span]], list[MetricStatus]]:
        data = _metric_data(metric, counts, len(names), score_from, end)
        judged = judge_windows(data.panel, largest_p=q, refit_days=refit_days)
        falls: list[Anomaly] = []
        judged_falls = 0
        if metric == "completion":
            since = score_from if lasting_from is None else lasting_from
            falls, judged_falls = _lasting(data, names, since, end)
        rows = _rows(data, judged, names, q, budget[metric], falls, judged_falls)
        return _with_pattern_shifts(rows) if metric == "volume" else rows, _statuses(data, names)

    # Arithmetic on large arrays, for which Python's lock is let go: two cores, half the time.
    with ThreadPoolExecutor(max_workers=2) as pool:
        answers = list(pool.map(judge, metrics))
    found = [pair for rows, _ in answers for pair in rows]
    statuses = [status for _, its in answers for status in its]
    found.sort(key=lambda pair: (pair[0].p_value, pair[0].skill_name, pair[0].window_start))
    return AnomalyReport(
        anomalies=tuple(row for row, _ in found),
        spans=tuple(span for _, span in found),
        statuses=tuple(statuses),
    )


@dataclass(frozen=True)
class _MetricData:
    """One metric of all skills by hour.

    Attributes:
        metric: Which.
        origin: Hour of column 0, a midnight.
        panel: What is judged.
        invocations: What `n` counts, shape (skills, hours).
        scale: Seconds that a value of 1 on the transformed scale stands for, shape (skills,).
        seen_hours: Hours from the first data of a skill to the start of scoring.
        seen_amount: Data before the start of scoring, in the unit of `ENOUGH_HISTORY`.
    """

    metric: Metric
    origin: int
    panel: Panel
    invocations: Floats
    scale: Floats
    seen_hours: NDArray[np.int64]
    seen_amount: Floats


def _metric_data(
    metric: Metric, counts: HourlyCounts, skills: int, score_from: int, end: int
) -> _MetricData:
    origin, hours = _span(counts, score_from, end)
    inside = (counts.hour >= origin) & (counts.hour < end)
    cell = counts.skill[inside] * hours + (counts.hour[inside] - origin)

    def dense(values: NDArray[np.int64] | Floats) -> Floats:
        flat = np.bincount(cell, weights=values[inside], minlength=skills * hours)
        return np.asarray(flat.reshape(skills, hours), dtype=np.float64)

    scale = np.ones(skills)
    start = score_from - origin
    if metric == "completion":
        family, invocations = RATE, dense(counts.decided)
        weight, total, amount = invocations, dense(counts.completed), invocations
    elif metric == "volume":
        family, invocations = COUNT, dense(counts.volume)
        watched = np.arange(hours) < end - origin
        weight = (watched & (np.cumsum(invocations, axis=1) > 0)).astype(np.float64)
        total, amount = invocations, invocations
    else:
        family, invocations = VALUE, dense(counts.duration_n)
        weight, total, scale = _log_durations(invocations, dense(counts.duration_sum), start)
        amount = (weight > 0).astype(np.float64)
    usable, scored = _usable(metric, weight, amount, start, end - origin)
    monday = (origin // 24 + 3) % 7  # 1970-01-01 was a Thursday
    baseline = rolling_baseline(weight, total, family, first_weekday=monday)
    return _MetricData(
        metric=metric,
        origin=origin,
        panel=Panel(weight, total, baseline, usable & np.isfinite(baseline.mean), scored),
        invocations=invocations,
        scale=scale,
        seen_hours=np.where(weight.any(axis=1), start - (weight > 0).argmax(axis=1), 0),
        seen_amount=amount[:, :start].sum(axis=1),
    )


def _span(counts: HourlyCounts, score_from: int, end: int) -> tuple[int, int]:
    """First hour, a midnight, and number of hours, whole days, that matter."""
    first = int(counts.hour.min()) if len(counts.hour) else score_from
    origin = min(max(first, score_from - 24 * HISTORY_DAYS), score_from) // 24 * 24
    return origin, -(-(end - origin) // 24) * 24


def _log_durations(n: Floats, seconds: Floats, start: int) -> tuple[Floats, Floats, Floats]:
    """Precision and weighted logarithm of the mean duration of each hour, and its scale.

    log(1 + mean / scale) is a logarithm for long durations and harmless at zero. The mean (not
    the median) of an hour is used because it adds up over hours and shows a single hung call. Its
    precision grows with n, but at most tenfold: hours differ for reasons of their own.
    """
    there = n > 0
    mean = np.where(there, seconds / np.where(there, n, 1.0), np.nan)
    scale = np.ones(len(n))
    for skill in np.flatnonzero(there.any(axis=1)):
        known = mean[skill, there[skill]]
        before = mean[skill, :start][there[skill, :start]]
        scale[skill] = max(float(np.median(before if len(before) else known)), 1e-3)
    weight = np.where(there, 10.0 * n / (n + 9.0), 0.0)
    return weight, weight * np.log1p(np.where(there, mean, 0.0) / scale[:, None]), scale


def _usable(
    metric: Metric, weight: Floats, amount: Floats, start: int, end: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Hours with enough past to learn from (a day), and hours with enough past to be judged."""
    age_needed, amount_needed = ENOUGH_HISTORY[metric]
    hours = weight.shape[1]
    seen = weight > 0
    first = np.where(seen.any(axis=1), seen.argmax(axis=1), hours)[:, None]
    # Both are asked at the midnight before: that is what the baseline of the hour rests on.
    midnight = np.arange(hours) // 24 * 24
    before = np.concatenate([np.zeros((len(amount), 1)), np.cumsum(amount, axis=1)], axis=1)
    age = midnight - first
    enough = (age >= age_needed) & (before[:, midnight] >= amount_needed)
    column = np.arange(hours)
    return age >= 24, enough & (column >= start) & (column < end)


def _rows(
    data: _MetricData,
    judged: Judged,
    names: Sequence[str],
    q: float,
    budget: float,
    falls: list[Anomaly],
    judged_falls: int,
) -> list[tuple[Anomaly, Span]]:
    """One row per event whose q-value is small enough, and the event's span."""
    picked, spans = events(judged.candidates)
    p = judged.null_p[picked]
    tests = max(judged.tests, 1)
    fall_p = np.array([fall.p_value for fall in falls]) * LASTING_PRICE * judged_falls / tests
    # Chance events are counted per judged hour, found ones per event; so is their ratio.
    together = np.minimum(np.concatenate([p, fall_p]), 1.0)
    q_values = np.minimum(
        benjamini_hochberg(together, max(tests, len(together))) / budget, 1.0
    ).tolist()
    rows: list[tuple[Anomaly, Span]] = []
    for at, (first, last), p_at, q_at in zip(
        picked.tolist(), spans.tolist(), p.tolist(), q_values[: len(picked)], strict=True
    ):
        if q_at > q:
            continue
        row = _row(data, judged.candidates, at, names, p_at, q_at)
        hours = _extent(data, judged.candidates, at, slice(first, last + 1))
        begin, end = (_moment(data.origin + hour) for hour in (hours.start, hours.stop))
        rows.append((row, (min(row.window_start, begin), max(row.window_end, end))))
    for fall, q_at in zip(falls, q_values[len(picked) :], strict=True):
        if q_at <= q:
            rows = _with_fall(rows, replace(fall, q_value=q_at))
    return rows


def _lasting(
    data: _MetricData, names: Sequence[str], since: int, end: int
) -> tuple[list[Anomaly], int]:
    """Lasting falls as rows, and how many skills could have had one.

    Days are counted back from the end, so that the last one is whole.
    """
    stop = end - data.origin
    days = stop // 24
    whole = slice(stop - 24 * days, stop)
    completed, decided = (
        part[:, whole].reshape(len(part), days, 24).sum(axis=2)
        for part in (data.panel.total, data.panel.weight)
    )
    found, judged = lasting_falls(completed, decided, earliest=days - (end - since) // 24)
    return [_fall_row(fall, names, end - 24 * (days - fall.since), end) for fall in found], judged


def _fall_row(fall: Lasting, names: Sequence[str], since: int, end: int) -> Anomaly:
    return Anomaly(
        skill_name=names[fall.skill],
        metric="completion",
        anomaly_type="drop",
        window_start=_moment(since),
        window_end=_moment(end),
        n=fall.n,
        baseline_value=fall.rate_before,
        observed_value=fall.rate_since,
        deviation_score=_z(fall.boundary_p),
        p_value=fall.p_value,
        q_value=1.0,
    )


def _with_fall(rows: list[tuple[Anomaly, Span]], fall: Anomaly) -> list[tuple[Anomaly, Span]]:
    """The rows and a lasting fall; drops inside it are the same event, the strongest is shown."""
    inside = [
        (row, span)
        for row, span in rows
        if (row.skill_name, row.anomaly_type) == (fall.skill_name, "drop")
        and span[1] > fall.window_start
    ]
    others = [pair for pair in rows if pair not in inside]
    strongest = min([fall, *(row for row, _ in inside)], key=lambda row: row.deviation_score)
    first = min([fall.window_start, *(span[0] for _, span in inside)])
    return [*others, (strongest, (first, fall.window_end))]


def _z(p: float) -> float:
    """The normal quantile that a two-sided p-value stands for, at most 0."""
    return float(ndtri_exp(np.log(max(p, 1e-300) / 2.0)))


def _moment(hour: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(hours=hour)


def _row(
    data: _MetricData, found: Candidates, at: int, names: Sequence[str], p: float, q: float
) -> Anomaly:
    skill, last, below = int(found.skill[at]), int(found.last[at]), bool(found.below[at])
    window = slice(last - int(found.length[at]) + 1, last + 1)
    residual, weight, mean = _hourly(data, found, at, window)
    shown = _core(residual, weight * data.panel.baseline.family.slope(mean))
    hours = slice(window.start + shown.start, window.start + shown.stop)
    expected, whole = float((weight * mean)[shown].sum()), float(weight[shown].sum())
    observed = float((residual + weight * mean)[shown].sum())
    if data.metric != "volume":
        expected, observed = expected / whole, observed / whole
    if data.metric == "duration":
        expected, observed = (
            float(data.scale[skill] * np.expm1(value)) for value in (expected, observed)
        )
    sign = -1.0 if below else 1.0
    return Anomaly(
        skill_name=names[skill],
        metric=data.metric,
        anomaly_type="drop" if below else "spike",
        window_start=_moment(data.origin + hours.start),
        window_end=_moment(data.origin + hours.stop),
        n=int(data.invocations[skill, hours].sum()),
        baseline_value=expected,
        observed_value=observed,
        deviation_score=-sign * _z(float(found.window_p[at])),
        p_value=p,
        q_value=q,
    )


def _hourly(
    data: _MetricData, found: Candidates, at: int, hours: slice
) -> tuple[Floats, Floats, Floats]:
    """Residual, weight and mean of hours, by the expectation that a window was tested with."""
    panel, family, skill = data.panel, data.panel.baseline.family, int(found.skill[at])
    usable = panel.usable[skill, hours] & (panel.weight[skill, hours] > 0)
    weight = np.where(usable, panel.weight[skill, hours], 0.0)
    mean = np.where(usable, panel.baseline.mean[skill, hours], 0.5)
    mean = family.unlink(family.link(mean) + found.shift[at])
    return np.where(usable, panel.total[skill, hours], 0.0) - weight * mean, weight, mean


def _extent(data: _MetricData, found: Candidates, at: int, span: slice) -> slice:
    """The hours of an event: the likeliest extent within its windows.

    A window of a day tells of a bad morning until the next one.
    """
    residual, weight, mean = _hourly(data, found, at, span)
    core = _core(residual, weight * data.panel.baseline.family.slope(mean))
    return slice(span.start + core.start, span.start + core.stop)


def _core(residual: Floats, information: Floats) -> slice:
    """The part of a window with the largest deviation in sd, which is its likeliest extent.

    A window of fixed length rarely fits an event; this drops the hours that only came along.
    """
    side = np.sign(residual.sum())
    deviation = np.concatenate([[0.0], np.cumsum(side * residual)])
    variance = np.concatenate([[0.0], np.cumsum(information)])
    gain = deviation[None, :] - deviation[:, None]
    spread = variance[None, :] - variance[:, None]
    z = np.where(spread > 0, gain / np.sqrt(np.where(spread > 0, spread, 1.0)), -np.inf)
    begin, stop = np.unravel_index(int(np.argmax(z)), z.shape)
    return slice(int(begin), int(stop))


def _with_pattern_shifts(
    rows: list[tuple[Anomaly, Span]],
) -> list[tuple[Anomaly, Span]]:
    """Join a drop and a spike of one skill within a day that leave the day's number of calls.

    Calls that came at other hours are one event, not two. The joined row has the p-value of its
    stronger half.
    """
    out: list[tuple[Anomaly, Span]] = []
    rows = sorted(rows, key=lambda pair: (pair[0].skill_name, pair[0].window_start))
    at = 0
    while at < len(rows):
        row, span = rows[at]
        joined = None
        if at + 1 < len(rows):
            joined = _pattern_shift(row, rows[at + 1][0])
        if joined:
            begin, end = rows[at + 1][1]
            row, span = joined, (min(span[0], begin), max(span[1], end))
        out.append((row, span))
        at += 2 if joined else 1
    return out


def _pattern_shift(first: Anomaly, second: Anomaly) -> Anomaly | None:
    expected = first.baseline_value + second.baseline_value
    observed = first.observed_value + second.observed_value
    if first.skill_name != second.skill_name or first.anomaly_type == second.anomaly_type:
        return None
    if second.window_end - first.window_start > timedelta(hours=24):
        return None
    if abs(observed - expected) > SAME_NUMBER * expected:
        return None
    strongest = min(first, second, key=lambda row: row.p_value)
    return replace(
        strongest,
        anomaly_type="pattern_shift",
        window_start=first.window_start,
        window_end=second.window_end,
        n=first.n + second.n,
        baseline_value=expected,
        observed_value=observed,
    )


def _statuses(data: _MetricData, names: Sequence[str]) -> list[MetricStatus]:
    panel = data.panel
    judged = (panel.scored & panel.usable & (panel.weight > 0)).sum(axis=1)
    hours_needed, amount_needed = ENOUGH_HISTORY[data.metric]
    unit = AMOUNT_UNIT[data.metric]
    out = []
    for skill, name in enumerate(names):
        reason = None
        if judged[skill] == 0:
            hours, amount = int(data.seen_hours[skill]), int(data.seen_amount[skill])
            if hours >= hours_needed and amount >= amount_needed:
                reason = f"no {unit} in the hours to judge"
            else:
                reason = (
                    f"not enough data: {max(hours, 0)} hours of history with {amount} {unit}, "
                    f"needs {hours_needed} hours and {amount_needed}"
                )
        out.append(MetricStatus(name, data.metric, int(judged[skill]), reason))
    return out


def _check(
    names: Sequence[str],
    counts: HourlyCounts,
    score_from: int,
    end: int,
    q: float,
    metrics: Sequence[Metric],
) -> None:
    if not 0.0 < q <= 1.0:
        raise ValueError(f"q = {q!r} is not in (0, 1]")
    if end <= score_from:
        raise ValueError(f"end = {end} is not after score_from = {score_from}")
    unknown = [metric for metric in metrics if metric not in METRICS]
    if unknown or not metrics or len(set(metrics)) < len(metrics):
        raise ValueError(f"metrics = {list(metrics)!r}: one or more of {', '.join(METRICS)}, once")
    arrays = {field.name: getattr(counts, field.name) for field in fields(counts)}
    if len({array.shape for array in arrays.values()}) != 1 or counts.skill.ndim != 1:
        raise ValueError("the arrays of counts differ in length")
    for name, array in arrays.items():
        if name != "hour" and not np.all(np.isfinite(array) & (array >= 0)):
            raise ValueError(f"counts.{name} has a value below 0 or not finite")
    if np.any(counts.skill >= len(names)):
        raise ValueError(f"counts.skill points beyond the {len(names)} names")
    if np.any(counts.completed > counts.decided):
        raise ValueError("counts.completed is more than counts.decided")
    if np.any(counts.decided > counts.volume):
        raise ValueError("counts.decided is more than counts.volume")
