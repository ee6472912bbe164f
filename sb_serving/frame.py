"""One immutable picture of what is going on, and the arithmetic of its parts.

The types that the faces read and the pure functions that make them from rows belong here. Reading
the rows is `live.py`, opening a snapshot `snapshot.py`, the answers' own types `models.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from types import MappingProxyType
from typing import Any, NamedTuple

from sb_serving.events import DURATION_BUCKETS, OUTCOMES

TotalKey = tuple[str, str, str, str]
"""skill_name, kind, workflow_phase (`unknown` where none is recorded), outcome."""

PERCENTILES = (0.5, 0.95)


class Row(NamedTuple):
    """One invocation as the windows see it; sorts by start, then id."""

    invoked_at: str
    id: int
    skill_name: str
    kind: str
    outcome: str
    duration_seconds: float | None
    session_id: str


@dataclass(slots=True)
class Sums:
    """Counts of one skill that can be added and subtracted, piece of time by piece of time."""

    kind: str
    completed: int = 0
    failed: int = 0
    rejected: int = 0
    cancelled: int = 0
    interrupted: int = 0
    no_result: int = 0
    duration_n: int = 0
    duration_sum: float = 0.0

    def add(self, other: Sums, sign: int = 1) -> None:
        """Add another piece of the same skill, or with sign -1 take it away."""
        self.completed += sign * other.completed
        self.failed += sign * other.failed
        self.rejected += sign * other.rejected
        self.cancelled += sign * other.cancelled
        self.interrupted += sign * other.interrupted
        self.no_result += sign * other.no_result
        self.duration_n += sign * other.duration_n
        self.duration_sum += sign * other.duration_sum

    @property
    def n(self) -> int:
        """Invocations of every outcome."""
        return (
            self.completed
            + self.failed
            + self.rejected
            + self.cancelled
            + self.interrupted
            + self.no_result
        )


@dataclass(frozen=True, slots=True)
class SkillWindow:
    """One skill in one window of time.

    Attributes:
        skill_name: The skill.
        kind: One of `events.KINDS`. A name has one kind; where a foreign row gave it a second, the
            window counts both under one of them.
        n: Invocations; completed to no_result split it by outcome.
        duration_n: Invocations whose duration is known.
        duration_sum: Their seconds.
        last_invoked_at: Latest start in the window, canonical text; None where it was not looked
            up.
        unique_sessions: Distinct sessions; None where it was not counted.
        duration_p50: Median of the known durations in seconds, interpolated; None where there is
            none or it was not computed.
        duration_p95: Likewise the 95th percentile.
    """

    skill_name: str
    kind: str
    n: int
    completed: int
    failed: int
    rejected: int
    cancelled: int
    interrupted: int
    no_result: int
    duration_n: int
    duration_sum: float
    last_invoked_at: str | None = None
    unique_sessions: int | None = None
    duration_p50: float | None = None
    duration_p95: float | None = None

    @property
    def completion_rate(self) -> float | None:
        """The share completed / (completed + failed); None where both are 0."""
        decided = self.completed + self.failed
        return self.completed / decided if decided else None

    @property
    def duration_avg(self) -> float | None:
        """Mean of the known durations in seconds; None where there is none."""
        return self.duration_sum / self.duration_n if self.duration_n else None


@dataclass(frozen=True, slots=True)
class Total:
    """All invocations ever of one skill, kind, phase and outcome.

    Attributes:
        n: Invocations.
        duration_n: Those whose duration is known.
        duration_sum: Their seconds.
        buckets: For each bound of `events.DURATION_BUCKETS` the invocations that took at most so
            long; cumulative.
    """

    n: int
    duration_n: int
    duration_sum: float
    buckets: tuple[int, ...]

    def __add__(self, other: Total) -> Total:
        return Total(
            self.n + other.n,
            self.duration_n + other.duration_n,
            self.duration_sum + other.duration_sum,
            tuple(mine + its for mine, its in zip(self.buckets, other.buckets, strict=True)),
        )


NOTHING = Total(0, 0, 0.0, (0,) * len(DURATION_BUCKETS))


@dataclass(frozen=True, slots=True)
class Anomaly:
    """One open row of the snapshot's `skill_anomalies`.

    Attributes:
        skill_name: The skill.
        anomaly_type: `drop`, `spike` or `pattern_shift`.
        metric: What left its expectation: `completion`, `volume` or `duration`.
        window_start: Begin of the window that shows it most, canonical text.
        window_end: Its end.
        n: Invocations in it.
        baseline_value: What was expected there, in the metric's unit.
        observed_value: What was seen.
        deviation_score: How far that is off, as a z-score of the expectation's model.
        p_value: Chance of such a deviation without a cause.
        q_value: The same, corrected for the number of skills looked at.
        detected_at: When it was first seen, canonical text.
    """

    skill_name: str
    anomaly_type: str
    metric: str
    window_start: str
    window_end: str
    n: int
    baseline_value: float | None
    observed_value: float | None
    deviation_score: float | None
    p_value: float | None
    q_value: float | None
    detected_at: str | None


@dataclass(frozen=True, slots=True)
class Frame:
    """Everything that is shown live, read at one moment, so that all numbers belong together.

    Attributes:
        at: The moment, canonical text; the windows end here. Of a stale frame: the moment of its
            numbers.
        snapshot_number: The snapshot in use; None while there is none.
        snapshot_published_at: When it was published.
        watermark_id: The newest invocation that the snapshot contains; 0 without one.
        last_event_id: The newest recorded invocation.
        last_event_at: Its start.
        hour: Skills of the last hour with percentiles and sessions; most used first, then by name.
        day: Skills of the last 24 hours, sums only; in the same order.
        totals: Counts since the beginning of the records.
        active_sessions: Sessions with an invocation that started in the last 15 minutes.
        anomalies: Open anomalies of the snapshot, strongest first.
        total_invocations: Sum of all totals.
        stale_reason: Why the numbers are older than they should be; None while they are not.
    """

    at: str
    snapshot_number: int | None = None
    snapshot_published_at: str | None = None
    watermark_id: int = 0
    last_event_id: int = 0
    last_event_at: str | None = None
    hour: tuple[SkillWindow, ...] = ()
    day: tuple[SkillWindow, ...] = ()
    totals: Mapping[TotalKey, Total] = field(default_factory=lambda: MappingProxyType({}))
    active_sessions: int = 0
    anomalies: tuple[Anomaly, ...] = ()
    total_invocations: int = 0
    stale_reason: str | None = None

    def stale(self, reason: str) -> Frame:
        """The same numbers, marked as out of date."""
        return replace(self, stale_reason=reason)


def percentile(ordered: list[float], share: float) -> float | None:
    """The value below which a share of the values lies, interpolated linearly.

    The same definition as SQL's `percentile_cont`.

    Args:
        ordered: Values in rising order.
        share: Between 0 and 1.
    """
    if not ordered:
        return None
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return between(ordered[below], ordered[above], place - below)


def between(low: float, high: float, share: float) -> float:
    """The point that lies a share of the way from low to high."""
    return low + (high - low) * share


def windows_of_rows(rows: Iterable[Row]) -> tuple[SkillWindow, ...]:
    """Count rows per skill, with percentiles and distinct sessions.

    Args:
        rows: The window's rows in time order.
    """
    by_skill: dict[str, list[Row]] = {}
    for row in rows:
        by_skill.setdefault(row.skill_name, []).append(row)
    windows = []
    for name, mine in by_skill.items():
        outcomes = [row.outcome for row in mine]
        durations = sorted(row.duration_seconds for row in mine if row.duration_seconds is not None)
        counts = [outcomes.count(outcome) for outcome in OUTCOMES]
        sums = Sums(mine[-1].kind, *counts)
        sums.duration_n, sums.duration_sum = len(durations), sum(durations)
        sessions = len({row.session_id for row in mine})
        p50, p95 = (percentile(durations, share) for share in PERCENTILES)
        windows.append(_window(name, sums, mine[-1].invoked_at, sessions, p50, p95))
    return ranked(windows)


def summed(pieces: Iterable[tuple[Iterable[tuple[Any, ...]], int]]) -> dict[str, Sums]:
    """Add pieces of a window, skill by skill.

    Args:
        pieces: Each with its sign: 1 to add it, -1 to take it away. A piece has rows
            (skill_name, kind, six outcomes, duration_n, duration_sum).
    """
    sums: dict[str, Sums] = {}
    for rows, sign in pieces:
        for name, kind, *counts in rows:
            mine = sums.get(name)
            if mine is None:
                mine = sums[name] = Sums(kind)
            mine.add(Sums(kind, *counts), sign)
    return sums


def windows_of_sums(
    sums: Mapping[str, Sums], last_times: Mapping[str, str]
) -> tuple[SkillWindow, ...]:
    """Skills from summed pieces; those that the pieces cancel out are left out.

    Args:
        sums: Skill -> its pieces, summed.
        last_times: Skill -> its latest start in the window, as far as known.
    """
    return ranked(
        _window(name, mine, last_times.get(name)) for name, mine in sums.items() if mine.n > 0
    )


def ranked(windows: Iterable[SkillWindow]) -> tuple[SkillWindow, ...]:
    """Most used first, then by name."""
    return tuple(sorted(windows, key=lambda window: (-window.n, window.skill_name)))


def _window(
    name: str,
    sums: Sums,
    last: str | None,
    unique_sessions: int | None = None,
    p50: float | None = None,
    p95: float | None = None,
) -> SkillWindow:
    # Taking pieces away leaves rounding errors behind; a foreign row may hold an infinite duration.
    known = sums.duration_n if isfinite(sums.duration_sum) else 0
    return SkillWindow(
        name,
        sums.kind,
        sums.n,
        sums.completed,
        sums.failed,
        sums.rejected,
        sums.cancelled,
        sums.interrupted,
        sums.no_result,
        known,
        max(0.0, sums.duration_sum) if known else 0.0,
        last,
        unique_sessions,
        p50,
        p95,
    )
