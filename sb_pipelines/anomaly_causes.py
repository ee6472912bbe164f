"""Since when an anomaly goes on, and what moved with it: error types, versions, models, projects.

Belongs here: which runs are compared with which, counted in the warehouse's events, and the
likeliest begin out of the hours of the series. Does not: the statistics
(`sb_serving.stats.changepoint`, `coincidence`), storing the answer (`anomalies`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
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

__all__ = ["Explained", "Factor", "Hours", "explain", "moment"]

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


NONE = ValueCounts("total", "", 0, 0, 0, 0)


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


@dataclass(frozen=True, slots=True)
class _Asked:
    """Which runs of an event are compared with which; times are naive UTC.

    Attributes:
        event: The event.
        since: When it began, as far as is known.
        low: First hour of the interval of that.
        high: Last hour of it.
        after: From here on runs are counted as after, the four weeks before as before.
        until: Where they end.
    """

    event: Anomaly
    since: datetime
    low: datetime
    high: datetime
    after: datetime
    until: datetime

    @staticmethod
    def of(hours: Hours, event: Anomaly, span: Span) -> _Asked:
        """Date an event by the hours of its skill."""
        start, stop = (_hour(edge) for edge in span)
        stop = min(stop, hours.end)
        since, low, high = (moment(at) for at in _change_point(hours, event, start, stop))
        if event.metric == "volume":
            after, until = (
                at.replace(tzinfo=None) for at in (event.window_start, event.window_end)
            )
        else:
            after, until = since, moment(stop)
        return _Asked(event, since, low, high, after, until)

    @property
    def bad(self) -> str:
        """What is counted of its runs; see anomaly_factors.sql."""
        drop = self.event.anomaly_type == "drop"
        if self.event.metric == "volume":
            return "any"
        if self.event.metric == "completion":
            return "failed" if drop else "completed"
        return "quick" if drop else "slow"

    def began(self, appeared: datetime) -> _Asked:
        """The same, begun when its cause was first seen."""
        return replace(
            self,
            since=appeared,
            low=min(self.low, appeared),
            high=max(self.high, appeared),
            after=appeared,
        )


def explain(
    connection: duckdb.DuckDBPyConnection, hours: Hours, found: Sequence[tuple[Anomaly, Span]]
) -> list[Explained]:
    """Date events and rank what moved with each.

    All together: a bad hour may hit two hundred skills, and their runs are read once.

    Args:
        connection: The warehouse; a temporary table is made in it.
        hours: What the search was given.
        found: What it found.

    Returns:
        One entry per event, in their order.
    """
    asked = [_Asked.of(hours, event, span) for event, span in found]
    factors = _factors(connection, asked)
    dated = {}
    for place, (one, its) in enumerate(zip(asked, factors, strict=True)):
        appeared = _appearance(connection, its, one.since)
        if appeared is not None and one.low - NEAR <= appeared <= one.high + NEAR:
            dated[place] = one.began(appeared)
    for place, its in zip(dated, _factors(connection, list(dated.values())), strict=True):
        asked[place], factors[place] = dated[place], its
    return [
        Explained(one.since, one.low, one.high, its)
        for one, its in zip(asked, factors, strict=True)
    ]


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
    connection: duckdb.DuckDBPyConnection, asked: Sequence[_Asked]
) -> list[tuple[Factor, ...]]:
    """What moved with each event."""
    if not asked:
        return []
    counted = [_Counted() for _ in asked]
    for event, attribute, value, n_before, bad_before, n_after, bad_after, first in _rows(
        connection, asked
    ):
        counts = ValueCounts(attribute, value, n_before, bad_before, n_after, bad_after)
        counted[event].put(counts, first)
    return [
        _shares(one.event, its) if one.event.metric == "volume" else _causes(its)
        for one, its in zip(asked, counted, strict=True)
    ]


@dataclass
class _Counted:
    """The runs of one event.

    Attributes:
        total: All.
        values: Those of each value.
        errors: The bad ones of each error.
        seen: Attribute and value -> start of its first run.
    """

    total: ValueCounts = NONE
    values: list[ValueCounts] = field(default_factory=list)
    errors: list[ValueCounts] = field(default_factory=list)
    seen: dict[tuple[str, str], datetime] = field(default_factory=dict)

    def put(self, counts: ValueCounts, first: datetime) -> None:
        """Add a row of anomaly_factors.sql."""
        self.seen[counts.attribute, counts.value] = first
        if counts.attribute == "total":
            self.total = counts
        else:
            (self.errors if counts.attribute == "error_type" else self.values).append(counts)


def _rows(connection: duckdb.DuckDBPyConnection, asked: Sequence[_Asked]) -> list[Any]:
    """Rows of anomaly_factors.sql; `event` is the place in `asked`."""
    earliest = {"earliest": min(one.after for one in asked) - BEFORE}
    _ask(connection, asked, {})
    if any(one.event.metric == "duration" for one in asked):
        shares = {"quick": 1.0 - SLOW_SHARE, "slow": SLOW_SHARE}
        found = connection.execute(sql.load("warehouse/anomaly_seconds.sql"), earliest | shares)
        _ask(connection, asked, dict(found.fetchall()))
    rows = connection.execute(sql.load("warehouse/anomaly_factors.sql"), earliest).fetchall()
    connection.execute("drop table anomaly_asked")
    return rows


def _ask(
    connection: duckdb.DuckDBPyConnection, asked: Sequence[_Asked], seconds: dict[int, float]
) -> None:
    """Make the temporary table `anomaly_asked`; where `seconds` lacks an event, none is bad."""

    def moments(times: Iterable[datetime]) -> NDArray[np.datetime64]:
        return np.array(list(times), dtype="datetime64[us]")

    listed = {  # noqa: F841 (DuckDB finds it by its name)
        "event": np.arange(len(asked)),
        "skill_name": np.array([one.event.skill_name for one in asked], dtype=object),
        "start": moments(one.after - BEFORE for one in asked),
        "since": moments(one.after for one in asked),
        "until": moments(one.until for one in asked),
        "bad": np.array([one.bad for one in asked], dtype=object),
        "seconds": np.ma.masked_invalid([seconds.get(at, np.nan) for at in range(len(asked))]),
    }
    connection.execute("create or replace temp table anomaly_asked as select * from listed")


def _causes(counted: _Counted) -> tuple[Factor, ...]:
    """Causes and symptoms of completions or durations out of the ordinary."""
    total = counted.total
    errors = [
        replace(one, n_before=total.n_before, n_after=total.n_after) for one in counted.errors
    ]
    found = coincident_changes(total, counted.values, errors)
    causes = [
        Factor(
            "cause", rank, *_columns(one.counts), one.explained, one.p_value, one.q_value,
            one.weight, counted.seen[one.counts.attribute, one.counts.value],
        )
        for rank, one in enumerate(found.suspects[:SHOWN], start=1)
    ]  # fmt: skip
    symptoms = [
        Factor(
            "symptom", rank, *_columns(one.counts), one.explained, one.p_value, None, None,
            counted.seen[one.counts.attribute, one.counts.value],
        )
        for rank, one in enumerate(found.symptoms[:SHOWN], start=1)
    ]  # fmt: skip
    return (*causes, *symptoms)


def _shares(event: Anomaly, counted: _Counted) -> tuple[Factor, ...]:
    """Where the calls of a window are missing or too many."""
    found = moved_shares(counted.total, counted.values, event.baseline_value)
    return tuple(
        Factor(
            "share", rank, *_columns(one.counts), one.explained, one.p_value, one.q_value, None,
            counted.seen[one.counts.attribute, one.counts.value],
        )
        for rank, one in enumerate(found[:SHOWN], start=1)
    )  # fmt: skip


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
