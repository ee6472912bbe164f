"""An event store with known rows, and the same rows counted one by one: what `live` must equal."""

from __future__ import annotations

import itertools
import shutil
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from math import isclose
from operator import attrgetter
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from sb_serving import times
from sb_serving.events import DURATION_BUCKETS, OUTCOMES, Invocation
from sb_serving.frame import Frame, SkillWindow, Total, TotalKey
from sb_serving.live import Live
from sb_serving.snapshot import SnapshotHolder, publish
from sb_serving.store import Store
from tests.builders import SESSION_BUDDY_INSERT

NOW = datetime(2026, 11, 22, 12, 20, tzinfo=UTC)
KIND_OF = {"commit": "skill", "review": "skill", "Bash": "tool", "mcp__db__query": "mcp_tool"}

same = partial(isclose, rel_tol=1e-9, abs_tol=1e-9)


ODD_TEXTS = [
    "garbage",
    "",
    "now",
    "12:30",
    "2026-13-45",
    "2026-02-30T10:00:00.000000+00:00",
    "2026-11-22T24:00:00.000000+00:00",
    "2026-11-22T12:61:00.000000+00:00",
    "2026-11-22T11:50:00Z",
    "2026-11-22 11:50:00",
    "2026-11-22T11:50:00",
    "2026-11-22T11:50:00.5+02:00",
    "2026-11-22",
    "0000-01-01T00:00:00.000000+00:00",
    "9999-12-31T23:00:00.000000+00:00",
    "2461367.5",
]
"""Times as other tools may write them, most of them none."""


@dataclass(frozen=True)
class Event:
    """One invocation as a test thinks of it."""

    at: datetime = NOW
    skill: str = "commit"
    outcome: str = "completed"
    duration: float | None = 1.0
    session: str = "session-1"
    phase: str | None = None
    companion: bool = True
    """False: added as Session-Buddy does, without companion."""

    @property
    def kind(self) -> str:
        return KIND_OF[self.skill]


@dataclass
class World:
    """An event store, its live side, and every event that was added."""

    folder: Path
    store: Store
    live: Live
    events: list[Event] = field(default_factory=list)

    @classmethod
    def make(cls, folder: Path, template: Path | None = None) -> World:
        """A world in a folder; `template` is an empty store to copy, which saves migrating."""
        path = folder / "skills.db"
        if template is not None:
            shutil.copy(template, path)
        store = Store.open(path, create=True)
        return cls(folder, store, Live(At(path), SnapshotHolder(folder / "snapshots")))

    def add(self, *events: Event) -> None:
        """Record events, in this order."""
        for companion, group in itertools.groupby(events, key=attrgetter("companion")):
            mine = list(group)
            if companion:
                first = len(self.events)
                self.store.import_batch(
                    [_invocation(event, first + i) for i, event in enumerate(mine)]
                )
            else:
                mine = [replace(e, outcome=_bare_outcome(e.outcome), phase=None) for e in mine]
                self.store.connection.execute("begin")
                self.store.connection.executemany(SESSION_BUDDY_INSERT, map(_bare_row, mine))
                self.store.connection.execute("commit")
            self.events += mine

    def publish(self) -> None:
        """Publish a snapshot of the totals of all events so far."""
        totals = self.totals()
        publish(
            lambda connection: make_totals(connection, totals),
            self.folder / "snapshots",
            watermark_id=self.last_id(),
            watermark_at=max((event.at for event in self.events), default=None),
            published_at=NOW,
            code_version="test",
            keep=2,
        )

    def last_id(self) -> int:
        query = "select coalesce(max(id), 0) from skill_invocation"
        return int(self.store.connection.execute(query).fetchone()[0])

    def within(self, start: datetime, end: datetime) -> list[Event]:
        """The events of (start, end], in the order of their times."""
        return sorted((e for e in self.events if start < e.at <= end), key=lambda e: e.at)

    def totals(self) -> dict[TotalKey, Total]:
        """All events, counted."""
        groups: dict[TotalKey, list[Event]] = {}
        for event in self.events:
            key = (event.skill, event.kind, event.phase or "unknown", event.outcome)
            groups.setdefault(key, []).append(event)
        return {key: _total(events) for key, events in groups.items()}

    def close(self) -> None:
        self.live.close()
        self.live.snapshots.close()
        self.store.close()


@dataclass(frozen=True)
class At:
    """What `Live` needs of the settings."""

    skills_db: Path


def _invocation(event: Event, number: int) -> Invocation:
    return Invocation(
        skill_name=event.skill,
        invoked_at=times.to_utc_text(event.at),
        session_id=event.session,
        outcome=event.outcome,
        kind=event.kind,
        source="test",
        event_id=f"event-{number}",
        duration_seconds=event.duration,
        workflow_phase=event.phase,
    )


def _bare_row(event: Event) -> tuple[Any, ...]:
    completed = event.outcome == "completed"
    error = "exit_1" if event.outcome == "failed" else None
    at = times.to_utc_text(event.at)
    return (event.skill, at, event.session, completed, error, event.duration, None)


def _bare_outcome(outcome: str) -> str:
    """A bare row can only say completed, failed (by an error) or neither."""
    return outcome if outcome in ("completed", "failed") else "no_result"


def _total(events: list[Event]) -> Total:
    durations = [e.duration for e in events if e.duration is not None]
    buckets = tuple(sum(d <= bound for d in durations) for bound in DURATION_BUCKETS)
    return Total(len(events), len(durations), sum(durations), buckets)


def make_totals(
    connection: duckdb.DuckDBPyConnection, totals: dict[TotalKey, Total] | None = None
) -> None:
    """The least that a snapshot must hold: its `skill_totals`."""
    bounds = ("0_1", "0_5", "1", "2", "5", "10", "30", "60", "300")
    columns = ", ".join(f"le_{bound} BIGINT" for bound in bounds)
    connection.execute(
        "create table skill_totals (skill_name VARCHAR, kind VARCHAR, workflow_phase VARCHAR,"
        f" outcome VARCHAR, n BIGINT, duration_n BIGINT, duration_sum DOUBLE, {columns},"
        " last_invoked_at TIMESTAMP)"
    )
    rows = [
        (*key, total.n, total.duration_n, total.duration_sum, *total.buckets, None)
        for key, total in (totals or {}).items()
    ]
    if rows:
        marks = ", ".join("?" * len(rows[0]))
        connection.executemany(f"insert into skill_totals values ({marks})", rows)


def counted(events: Iterable[Event], *, details: bool = True) -> dict[str, SkillWindow]:
    """The windows of some events, each number by its definition."""
    by_skill: dict[str, list[Event]] = {}
    for event in events:
        by_skill.setdefault(event.skill, []).append(event)
    found = {}
    for skill, mine in by_skill.items():
        durations = [e.duration for e in mine if e.duration is not None]
        some = details and durations
        outcomes: dict[str, Any] = {o: sum(e.outcome == o for e in mine) for o in OUTCOMES}
        found[skill] = SkillWindow(
            skill,
            mine[0].kind,
            len(mine),
            **outcomes,
            duration_n=len(durations),
            duration_sum=sum(durations),
            last_invoked_at=times.to_utc_text(max(e.at for e in mine)),
            unique_sessions=len({e.session for e in mine}) if details else None,
            duration_p50=float(np.percentile(durations, 50)) if some else None,
            duration_p95=float(np.percentile(durations, 95)) if some else None,
        )
    return found


def assert_windows(windows: Iterable[SkillWindow], expected: dict[str, SkillWindow]) -> None:
    """Equal; sums and percentiles of seconds up to rounding."""
    windows = tuple(windows)
    assert {window.skill_name for window in windows} == set(expected)
    assert list(windows) == sorted(windows, key=lambda w: (-w.n, w.skill_name))
    for window in windows:
        should = expected[window.skill_name]
        assert _exact(window) == _exact(should)
        assert same(window.duration_sum, should.duration_sum)
        for mine, its in (
            (window.duration_p50, should.duration_p50),
            (window.duration_p95, should.duration_p95),
        ):
            assert (mine is None) == (its is None)
            assert mine is None or its is None or same(mine, its)


def _exact(window: SkillWindow) -> SkillWindow:
    return replace(window, duration_sum=0.0, duration_p50=None, duration_p95=None)


def assert_totals(frame: Frame, expected: dict[TotalKey, Total]) -> None:
    """Equal to a recount; sums of seconds up to rounding."""
    assert set(frame.totals) == set(expected)
    for key, total in frame.totals.items():
        should = expected[key]
        assert replace(total, duration_sum=0.0) == replace(should, duration_sum=0.0)
        assert same(total.duration_sum, should.duration_sum)
    assert frame.total_invocations == sum(total.n for total in expected.values())


def assert_frame(frame: Frame, world: World, now: datetime) -> None:
    """Every number of a frame is what a direct count gives."""
    assert frame.stale_reason is None
    assert frame.at == times.to_utc_text(now)
    assert frame.last_event_id == world.last_id()
    hour = world.within(now - timedelta(hours=1), now)
    day = world.within(now - timedelta(hours=24), now)
    active = world.within(now - timedelta(minutes=15), now)
    assert_windows(frame.hour, counted(hour))
    assert_windows(frame.day, counted(day, details=False))
    assert frame.active_sessions == len({event.session for event in active})
    assert_totals(frame, world.totals())


def insert_text(connection: sqlite3.Connection, text: str, skill: str = "commit") -> None:
    """A foreign row with any text in place of a time."""
    connection.execute(SESSION_BUDDY_INSERT, (skill, text, "session-1", 1, None, 1.0, None))
