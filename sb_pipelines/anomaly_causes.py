"""Since when an anomaly goes on, and what moved with it: error types, versions, models, projects.

Belongs here: which runs are compared with which, counted in the warehouse's events, and the
likeliest begin out of the hours of the series. Does not: the statistics
(`sb_serving.stats.changepoint`, `coincidence`), storing the answer (`anomalies`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeAlias

import duckdb
import numpy as np
from numpy.typing import NDArray

from sb_pipelines.resources import one_row
from sb_serving import sql
from sb_serving.stats.anomaly import Anomaly, HourlyCounts, Span
from sb_serving.stats.changepoint import find_rise, find_shift
from sb_serving.stats.coincidence import ValueCounts, coincident_changes, moved_shares

__all__ = ["Explained", "Factor", "Hours", "explain", "moment", "runs_read"]

Floats: TypeAlias = NDArray[np.float64]

BEFORE = timedelta(days=28)
"""What an anomaly is compared with: four weeks before it."""

SLOW_SHARE = 0.9
"""A run is slow when it takes longer than this share of those before; quick, the reverse."""

CERTAIN = 0.5
"""From this weight on, the likeliest cause's first appearance is taken for the begin ..."""

NEAR = timedelta(days=3)
"""... if it lies in the change point's interval or at most so far outside: versions roll out over
days, and the first failures under them are few."""

SHOWN = 10
"""Most factors kept of each role."""


class Factor(NamedTuple):
    """A row of `skill_anomaly_factors`, without the anomaly's id; see schema.sql."""

    role: str
    rank: int
    attribute: str
    value: str
    n_before: int
    bad_before: int
    n_after: int
    bad_after: int
    explained: float
    p_value: float
    q_value: float | None
    weight: float | None
    first_seen: datetime


@dataclass(frozen=True, slots=True)
class Explained:
    """What is known about one anomaly besides its numbers; times are naive UTC.

    Attributes:
        since: When it began: the likeliest change point, or the first appearance of its cause.
        low: First hour of the change point's 90 % interval, never after `since`.
        high: Last hour of it, never before `since`.
        factors: Likeliest first within each role.
    """

    since: datetime
    low: datetime
    high: datetime
    factors: tuple[Factor, ...]


@dataclass(frozen=True)
class Hours:
    """The hours that a search has read, found again by skill.

    Attributes:
        counts: What the search is given, sorted by skill.
        end: The first hour not to judge.
        names: Skill -> its rows.
    """

    counts: HourlyCounts
    end: int
    names: dict[str, slice]

    @staticmethod
    def of(names: Sequence[str], skill: NDArray[np.int64], end: int, **columns: Any) -> Hours:
        """Index rows that are sorted by skill."""
        bounds = np.searchsorted(skill, np.arange(len(names) + 1))
        rows = {name: slice(bounds[i], bounds[i + 1]) for i, name in enumerate(names)}
        return Hours(HourlyCounts(skill=skill, **columns), end, rows)

    def column(self, skill_name: str, name: str, start: int, stop: int) -> Floats:
        """One value per hour of [start, stop), 0 where nothing was."""
        mine = self.names[skill_name]
        hour = self.counts.hour[mine]
        inside = (hour >= start) & (hour < stop)
        out = np.zeros(stop - start)
        out[hour[inside] - start] = getattr(self.counts, name)[mine][inside]
        return out


@contextmanager
def runs_read(
    connection: duckdb.DuckDBPyConnection, skills: Collection[str], earliest: datetime
) -> Iterator[None]:
    """Read the runs that `explain` counts, once for all events that are explained inside.

    A bad hour may hit two hundred skills; the log is read once for all of them.

    Args:
        connection: The warehouse.
        skills: Of the events.
        earliest: Where the earliest span begins, UTC.
    """
    if not skills:
        yield
        return
    # A change point lies at most one `BEFORE` back, what is compared with it one more.
    start = earliest.replace(tzinfo=None) - 2 * BEFORE - NEAR
    connection.execute(
        "create or replace temp table anomaly_runs as " + sql.load("warehouse/anomaly_runs.sql"),
        {"skills": sorted(skills), "start": start},
    )
    yield
    connection.execute("drop table anomaly_runs")


def explain(
    connection: duckdb.DuckDBPyConnection, hours: Hours, event: Anomaly, span: Span
) -> Explained:
    """Date an event and rank what moved with it.

    Args:
        connection: The warehouse, inside `runs_read` of the event's skill.
        hours: What the search was given.
        event: What it found.
        span: Of the event.
    """
    start, stop = (_hour(edge) for edge in span)
    since, low, high = _change_point(hours, event, start, min(stop, hours.end))
    until = moment(min(stop, hours.end))
    if event.metric == "volume":
        factors = _shares(connection, event)
        return Explained(moment(since), moment(low), moment(high), factors)
    begin, first, last = moment(since), moment(low), moment(high)
    factors = _factors(connection, event, begin, until)
    appeared = _appearance(connection, factors, begin)
    if appeared is not None and first - NEAR <= appeared <= last + NEAR:
        begin, first, last = appeared, min(first, appeared), max(last, appeared)
        factors = _factors(connection, event, begin, until)
    return Explained(begin, first, last, factors)


def _appearance(
    connection: duckdb.DuckDBPyConnection, factors: Sequence[Factor], begin: datetime
) -> datetime | None:
    """The hour in which the likeliest cause was first seen, with any skill.

    None where no cause is likely, or where it has been there too long to be new.
    """
    cause = next((factor for factor in factors if factor.role == "cause"), None)
    if cause is None or (cause.weight or 0.0) < CERTAIN:
        return None
    (seen,) = one_row(
        connection,
        sql.load("warehouse/anomaly_first_run.sql"),
        {"attribute": cause.attribute, "value": cause.value, "start": begin - BEFORE},
    )
    if seen is None or seen < begin - BEFORE / 2:
        return None
    hour: datetime = seen.replace(minute=0, second=0, microsecond=0)
    return hour


def _change_point(hours: Hours, event: Anomaly, start: int, stop: int) -> tuple[int, int, int]:
    """Likeliest hour of the change, first and last of its interval."""
    back = int(BEFORE / timedelta(hours=1))
    if event.metric == "completion":
        begin = start - back
        decided = hours.column(event.skill_name, "decided", begin, stop).astype(np.int64)
        good = hours.column(event.skill_name, "completed", begin, stop).astype(np.int64)
        bad = good if event.anomaly_type == "spike" else decided - good
        rise = find_rise(bad, decided, permutations=1)
        if rise is not None:
            return begin + rise.index, begin + rise.low, begin + rise.high
        return start, start, start
    # A change that comes after the window's own begin does not explain the window.
    begin, last = start - 3 * 24, _hour(event.window_end)
    residual, variance = _residuals(hours, event, begin - back, last)
    shift = find_shift(residual[back:], variance[back:])
    if shift is None:
        return start, start, start
    return begin + shift.index, begin + shift.low, begin + shift.high


def _residuals(hours: Hours, event: Anomaly, begin: int, stop: int) -> tuple[Floats, Floats]:
    """Per hour what was seen beyond the usual, and the variance of that; 0 where nothing is known.

    Usual is the same hour of the day in the four weeks before, by its mean.
    """
    days = slice(0, int(BEFORE / timedelta(hours=1)))
    of_day = (begin + np.arange(stop - begin)) % 24
    if event.metric == "volume":
        seen = hours.column(event.skill_name, "volume", begin, stop)
        # Hours before the skill's first call were not silent: nobody knew it yet.
        first = int(hours.counts.hour[hours.names[event.skill_name]].min())
        weight = (np.arange(begin, stop) >= first).astype(np.float64)
    else:
        weight = hours.column(event.skill_name, "duration_n", begin, stop)
        seconds = hours.column(event.skill_name, "duration_sum", begin, stop)
        seen = np.log(np.maximum(seconds / np.maximum(weight, 1.0), 1e-3)) * weight
    sums = np.bincount(of_day[days], weights=seen[days], minlength=24)
    weights = np.bincount(of_day[days], weights=weight[days], minlength=24)
    overall = sums.sum() / max(weights.sum(), 1.0)
    usual = (sums + 3.0 * overall) / (weights + 3.0)
    residual = seen - weight * usual[of_day]
    noise = weight * usual[of_day] if event.metric == "volume" else weight
    scatter = (residual[days] ** 2).sum() / max(noise[days].sum(), 1e-9)
    return residual, noise * max(scatter, 1e-9)


def _factors(
    connection: duckdb.DuckDBPyConnection, event: Anomaly, since: datetime, until: datetime
) -> tuple[Factor, ...]:
    """Causes and symptoms of completions or durations out of the ordinary."""
    drop = event.anomaly_type == "drop"
    seconds = None
    if event.metric == "completion":
        bad = "failed" if drop else "completed"
    else:
        bad = "quick" if drop else "slow"
        (seconds,) = one_row(
            connection,
            sql.load("warehouse/anomaly_seconds.sql"),
            {
                "skill": event.skill_name,
                "start": since - BEFORE,
                "since": since,
                "share": 1.0 - SLOW_SHARE if drop else SLOW_SHARE,
            },
        )
        if seconds is None:
            return ()
    total, values, errors, seen = _counted(connection, event, since, until, bad, seconds)
    found = coincident_changes(total, values, errors)
    causes = [
        Factor(
            "cause", rank, *_columns(one.counts), one.explained, one.p_value, one.q_value,
            one.weight, seen[one.counts.attribute, one.counts.value],
        )
        for rank, one in enumerate(found.suspects[:SHOWN], start=1)
    ]  # fmt: skip
    symptoms = [
        Factor(
            "symptom", rank, *_columns(one.counts), one.explained, one.p_value, None, None,
            seen[one.counts.attribute, one.counts.value],
        )
        for rank, one in enumerate(found.symptoms[:SHOWN], start=1)
    ]  # fmt: skip
    return (*causes, *symptoms)


def _shares(connection: duckdb.DuckDBPyConnection, event: Anomaly) -> tuple[Factor, ...]:
    """Where the calls of a window are missing or too many."""
    since, until = (edge.replace(tzinfo=None) for edge in (event.window_start, event.window_end))
    total, values, _, seen = _counted(connection, event, since, until, "any", None)
    return tuple(
        Factor(
            "share", rank, *_columns(one.counts), one.explained, one.p_value, one.q_value, None,
            seen[one.counts.attribute, one.counts.value],
        )
        for rank, one in enumerate(
            moved_shares(total, values, event.baseline_value)[:SHOWN], start=1
        )
    )  # fmt: skip


def _counted(
    connection: duckdb.DuckDBPyConnection,
    event: Anomaly,
    since: datetime,
    until: datetime,
    bad: str,
    seconds: float | None,
) -> tuple[ValueCounts, list[ValueCounts], list[ValueCounts], dict[tuple[str, str], datetime]]:
    """All runs, those of each value, the bad ones of each error, and each value's first run."""
    rows = connection.execute(
        sql.load("warehouse/anomaly_factors.sql"),
        {
            "skill": event.skill_name,
            "start": since - BEFORE,
            "since": since,
            "until": until,
            "bad": bad,
            "seconds": seconds,
        },
    ).fetchall()
    total = ValueCounts("total", "", 0, 0, 0, 0)
    values: list[ValueCounts] = []
    errors: list[ValueCounts] = []
    seen = {}
    for attribute, value, n_before, bad_before, n_after, bad_after, first in rows:
        counts = ValueCounts(attribute, value, n_before, bad_before, n_after, bad_after)
        seen[attribute, value] = first
        if attribute == "total":
            total = counts
        elif attribute == "error_type":
            errors.append(counts)
        else:
            values.append(counts)
    errors = [
        ValueCounts(
            one.attribute, one.value, total.n_before, one.failed_before, total.n_after,
            one.failed_after,
        )
        for one in errors
    ]  # fmt: skip
    return total, values, errors, seen


def _columns(counts: ValueCounts) -> tuple[str, str, int, int, int, int]:
    return (
        counts.attribute,
        counts.value,
        counts.n_before,
        counts.failed_before,
        counts.n_after,
        counts.failed_after,
    )


def _hour(moment: datetime) -> int:
    return int(moment.timestamp()) // 3600


def moment(hour: int) -> datetime:
    """The start of an hour since 1970, naive UTC as the warehouse has it."""
    return datetime.fromtimestamp(3600 * hour, UTC).replace(tzinfo=None)
