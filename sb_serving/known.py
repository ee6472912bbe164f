"""What is known when a run starts: the predictor's counts for one question after another.

Belongs here: the totals of a snapshot as they are held in memory, the runs that are carried from
one question to the next, and the columns made of both. Does not: the same counts for the past
(`sb_pipelines.training.features`), what the features made of them are (`sb_serving.stats.success`),
the question and the answer (`sb_serving.predict`).

A question reads little: the runs recorded since the one before, and its own session. Carried are
the runs that ended in the last day, the sums of those after the snapshot's totals, and the week of
each skill that was asked about. All of it is read anew where the file was replaced or migrated,
where its newest row is another one than it was, and every few hours.
"""

from __future__ import annotations

import sqlite3
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import md5
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from sb_serving import sql, times
from sb_serving.errors import SbError
from sb_serving.predict import DAY, RECENT, WEEK_HOURS, Question
from sb_serving.snapshot import Snapshot
from sb_serving.stats.success import COUNTS
from sb_serving.store.checks import MAX_DURATION

__all__ = ["Known", "Totals"]

Counts = tuple[int, int, int]
"""Runs, completed, completed or failed."""
Place = tuple[str, str]
"""Scope and key, as in `sql/warehouse/predictor_totals.sql`."""

LAST_RUNS = 3
NO_END = timedelta(hours=24)
"""How long before the last day a run without a recorded end may have started and still be found."""
READ_ANEW = timedelta(hours=6)
"""After so long what is carried is dropped; until then it only grows."""

_BETWEEN = chr(31)
"""Between the parts of a key."""
_HOUR = 3_600_000_000
_SPARE = timedelta(hours=1)
_OTHER, _COMPLETED, _FAILED = range(3)
_CODES = {"completed": _COMPLETED, "failed": _FAILED}
_NONE: Counts = (0, 0, 0)


# --- the snapshot's part --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Totals:
    """The counts over all time up to a snapshot; 20 bytes a row.

    A row is found by its code, 64 bits of a hash of scope and key. Rows that share a code are told
    apart; a key that has no row is taken for another's in one look-up of 10^12, at ten million.

    Attributes:
        until: Every run up to this id is counted.
        codes: Rising, shape (N,).
        counts: Runs, completed, completed or failed of each, shape (N, 3).
        alike: The rows that share a code.
    """

    until: int
    codes: NDArray[np.uint64]
    counts: NDArray[np.uint32]
    alike: Mapping[Place, Counts]

    @classmethod
    def load(cls, snapshot: Snapshot) -> Totals:
        """Read and check a snapshot's table.

        Args:
            snapshot: Pinned.

        Raises:
            SbError: It is missing or damaged.
        """
        try:
            found = snapshot.columns(sql.load("training/live_totals.sql"))
            codes = found["code"]
            counts = np.stack([found[name] for name in ("n", "completed", "decided")], axis=1)
            alike = {}
            if (codes[1:] == codes[:-1]).any():
                rows = snapshot.query(sql.load("training/live_totals_alike.sql"))
                alike = {(scope, key): (n, good, of) for scope, key, n, good, of in rows}
        except (duckdb.Error, SbError) as error:
            raise _damaged(snapshot, str(error).partition("\n")[0]) from error
        if codes.dtype != np.uint64 or (codes[1:] < codes[:-1]).any():
            raise _damaged(snapshot, "the codes do not rise")
        runs, completed, decided = counts.T
        if (completed > decided).any() or (decided > runs).any():
            raise _damaged(snapshot, "completed is no part of the runs")
        until, _ = snapshot.watermarks.get("predictor_totals", (0, None))
        return cls(until, codes, counts, alike)

    def of(self, places: Mapping[str, Place]) -> dict[str, Counts]:
        """The counts of some places, by the names given to them."""
        wanted = np.array([_code(*place) for place in places.values()], dtype=np.uint64)
        at = np.searchsorted(self.codes, wanted)
        found = {}
        for (name, place), row, code in zip(
            places.items(), at.tolist(), wanted.tolist(), strict=True
        ):
            if self.alike and place in self.alike:
                found[name] = self.alike[place]
            elif row < len(self.codes) and int(self.codes[row]) == code:
                n, completed, decided = self.counts[row].tolist()
                found[name] = (n, completed, decided)
        return found


def _damaged(snapshot: Snapshot, problem: str) -> SbError:
    return SbError(
        f"predictor_totals of snapshot {snapshot.manifest.number} cannot be used: {problem}",
        fix="Run `sb refresh` to publish it again.",
    )


def _code(scope: str, key: str) -> int:
    """The code of a row of `predictor_totals`."""
    text = f"{scope}{_BETWEEN}{key}".encode()
    return int.from_bytes(md5(text, usedforsecurity=False).digest()[:8], "little")


# --- what is carried ------------------------------------------------------------------------------


class _Ends:
    """Runs by the moment at which their outcome was known."""

    __slots__ = ("moments", "outcomes")

    def __init__(self) -> None:
        self.moments: list[int] = []
        self.outcomes = bytearray()

    def add(self, moment: int, outcome: int) -> None:
        place = bisect_right(self.moments, moment)
        self.moments.insert(place, moment)
        self.outcomes.insert(place, outcome)

    def between(self, start: int, end: int) -> Counts:
        """Those in [start, end)."""
        first, last = bisect_left(self.moments, start), bisect_left(self.moments, end)
        completed = self.outcomes.count(_COMPLETED, first, last)
        return last - first, completed, completed + self.outcomes.count(_FAILED, first, last)


@dataclass(frozen=True, slots=True)
class _Run:
    """One row of `sql/training/live_news.sql`, its times read."""

    skill: str
    user: str
    phase: str
    agent: str
    version: str
    model: str
    begun: int
    ended: int
    outcome: int

    def places(self) -> Iterator[Place]:
        """The rows of `predictor_totals` that it counts in."""
        yield "all", ""
        yield "skill", self.skill
        if self.user:
            yield "user", self.user
            yield "user_skill", f"{self.user}{_BETWEEN}{self.skill}"
        yield "version", _BETWEEN.join((self.skill, self.agent, self.version))
        yield "phase", self.phase
        yield "agent", self.agent
        yield "model", self.model


@dataclass(slots=True)
class _Carried:
    """What one question leaves for the next; valid for one file, one schema and one log."""

    file: object
    migrated: str | None
    last_id: int
    mark: str | None
    since: int
    """The runs that ended from here on are in `ends`."""
    ends: dict[Place, _Ends] = field(default_factory=dict)
    """Of each skill, each phase, and all."""
    until: int = -1
    """`Totals.until` of those to which `tail` belongs."""
    tail: dict[Place, Counts] = field(default_factory=dict)
    first_hour: int = -1
    """Hours since 1970 at which the weeks begin."""
    weeks: dict[str, Counts] = field(default_factory=dict)

    def ended(self, runs: Iterable[_Run]) -> None:
        for run in runs:
            if run.ended >= self.since:
                for place in (("all", ""), ("skill", run.skill), ("phase", run.phase)):
                    self.ends.setdefault(place, _Ends()).add(run.ended, run.outcome)

    def started(self, runs: Iterable[_Run]) -> None:
        for run in runs:
            if run.skill in self.weeks and 0 <= run.begun // _HOUR - self.first_hour <= WEEK_HOURS:
                self.weeks[run.skill] = _with(self.weeks[run.skill], run.outcome)

    def counted(self, runs: Iterable[_Run]) -> None:
        for run in runs:
            for place in run.places():
                self.tail[place] = _with(self.tail.get(place, _NONE), run.outcome)


def _with(counts: Counts, outcome: int) -> Counts:
    n, completed, decided = counts
    return n + 1, completed + (outcome == _COMPLETED), decided + (outcome != _OTHER)


class Known:
    """Counts for one question after another; any number of threads may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._carried: _Carried | None = None

    def counts(
        self, log: sqlite3.Connection, totals: Totals, question: Question, file: object = None
    ) -> dict[str, int]:
        """What is known now: the columns of one row, equal to those that training computes.

        Totals come from the snapshot plus the runs recorded since; the rest from the log. Every run
        in the log counts as known, except those that end at or after the question in its session
        and in the windows.

        Args:
            log: `skills.db`, open for reading.
            totals: The snapshot's.
            question: The run that is about to start.
            file: Tells one file from another that took its place.

        Returns:
            `asked_at`, `COUNTS` and `SESSION` by name.
        """
        asked = times.microseconds(question.at)
        with self._lock, _one_moment(log):
            carried = self._brought_up(log, totals, asked, file)
            known, previous = _session(log, question, asked)
            places = _places(question, previous)
            counts = dict.fromkeys(COUNTS, _NONE) | totals.of(places)
            for name, place in places.items():
                if place in carried.tail:
                    counts[name] = _sum(counts[name], carried.tail[place])
            counts["skill_7d"] = _week(log, carried, question.skill_name, asked)
            for name, place, span in (
                ("skill_24h", ("skill", question.skill_name), DAY),
                ("all_3h", ("all", ""), RECENT),
                ("phase_3h", ("phase", question.workflow_phase), RECENT),
            ):
                if place in carried.ends:
                    start = asked - span // times.MICROSECOND
                    counts[name] = carried.ends[place].between(start, asked)
        for name, (n, completed, decided) in counts.items():
            known |= {f"{name}_n": n, f"{name}_completed": completed, f"{name}_decided": decided}
        return {"asked_at": asked} | known

    def _brought_up(
        self, log: sqlite3.Connection, totals: Totals, asked: int, file: object
    ) -> _Carried:
        """What is carried, with the runs recorded since the last question."""
        carried, self._carried = self._carried, None  # nothing half done is left by an error
        ((last_id, _, migrated),) = log.execute(sql.load("live/state.sql")).fetchall()
        start = asked - DAY // times.MICROSECOND
        if (
            carried is None
            or (carried.file, carried.migrated) != (file, migrated)
            or _mark(log, carried.last_id) != carried.mark
            or not 0 <= start - carried.since <= READ_ANEW // times.MICROSECOND
        ):
            since = start - _SPARE // times.MICROSECOND
            carried = _Carried(file, migrated, last_id, _mark(log, last_id), since)
            day = times.of_microseconds(since)
            carried.ended(
                sorted(
                    _runs(
                        log,
                        "live_ended",
                        since=times.to_utc_text(day),
                        started=times.to_utc_text(day - NO_END),
                    ),
                    key=lambda run: run.ended,
                )
            )
        elif last_id != carried.last_id:
            news = list(_runs(log, "live_news", after=carried.last_id))
            carried.ended(news)
            carried.started(news)
            carried.counted(news)
            carried.last_id, carried.mark = last_id, _mark(log, last_id)
        if carried.until != totals.until:
            carried.until, carried.tail = totals.until, {}
            carried.counted(_runs(log, "live_news", after=totals.until))
        self._carried = carried
        return carried


@contextmanager
def _one_moment(log: sqlite3.Connection) -> Iterator[None]:
    """All reading sees the log as it is now, while others write."""
    if log.in_transaction:
        yield
        return
    log.execute("begin")
    try:
        yield
    finally:
        log.execute("rollback")


def _mark(log: sqlite3.Connection, row_id: int) -> str | None:
    rows = log.execute(sql.load("live/row_mark.sql"), {"id": row_id}).fetchall()
    return str(rows[0][0]) if rows else None


def _runs(log: sqlite3.Connection, query: str, **parameters: object) -> Iterator[_Run]:
    """The rows of a query whose start the warehouse can read; the others are no runs."""
    rows = log.execute(sql.load(f"training/{query}.sql"), parameters).fetchall()
    for skill, user, phase, agent, version, model, start, end, duration, outcome in rows:
        begun = _start(start)
        if begun is not None:
            ended = _end(begun, end, duration)
            code = _CODES.get(outcome, _OTHER)
            yield _Run(skill, user, phase, agent, version, model, begun, ended, code)


def _places(question: Question, previous: str | None) -> dict[str, Place]:
    """Where the counts over all time stand, by their names in `COUNTS`."""
    run = _Run(
        question.skill_name,
        question.user_id,
        question.workflow_phase,
        question.agent,
        question.agent_version,
        question.model,
        begun=0,
        ended=0,
        outcome=_OTHER,
    )
    found = {place[0]: place for place in run.places()}
    if previous is not None:
        found["previous"] = ("skill", previous)
    return found


def _week(log: sqlite3.Connection, carried: _Carried, skill: str, asked: int) -> Counts:
    """The runs of the hour of the question and of the 168 before, by their starts."""
    first = asked // _HOUR - WEEK_HOURS
    if first != carried.first_hour:
        carried.first_hour, carried.weeks = first, {}
    found = carried.weeks.get(skill)
    if found is None:
        hour = times.to_utc_text(times.of_microseconds(first * _HOUR))[:13]
        row = log.execute(
            sql.load("training/live_week.sql"), {"first": hour, "skill": skill}
        ).fetchone()
        found = _sum(_NONE, row)
        if found != _NONE:  # a name that nobody recorded must not fill the memory
            carried.weeks[skill] = found
    return found


def _session(
    log: sqlite3.Connection, question: Question, asked: int
) -> tuple[dict[str, int], str | None]:
    """The session's columns, and the skill that ran before."""
    known: list[tuple[int, int, str, str]] = []
    if question.session_id:
        rows = log.execute(
            sql.load("training/live_session.sql"), {"session": question.session_id}
        ).fetchall()
        for skill, start, end, duration, outcome in rows:
            begun = _start(start)
            if begun is not None and (ended := _end(begun, end, duration)) < asked:
                known.append((ended, begun, skill, outcome))
    known.sort(key=lambda run: run[0])  # stable: runs that ended together stay in id order
    outcomes = [outcome for *_, outcome in known]
    return {
        "session_n": len(known),
        "session_completed": outcomes.count("completed"),
        "session_decided": outcomes.count("completed") + outcomes.count("failed"),
        "session_failures": outcomes[-LAST_RUNS:].count("failed"),
        "session_last_failed": int(outcomes[-1:] == ["failed"]),
        "session_begun_at": min((begun for _, begun, *_ in known), default=asked),
    }, known[-1][2] if known else None


def _sum(counts: Counts, more: Iterable[float]) -> Counts:
    n, completed, decided = (a + int(b) for a, b in zip(counts, more, strict=True))
    return n, completed, decided


def _start(text: Any) -> int | None:
    moment = times.readable(text)
    return None if moment is None else times.microseconds(moment)


def _end(begun: int, end: Any, duration: Any) -> int:
    """When an outcome was known, by the rules of `warehouse/events.sql`."""
    recorded = _start(end)
    if recorded is not None:
        return max(begun, recorded)
    known = isinstance(duration, (int, float)) and 0 <= duration <= MAX_DURATION
    return begun + round(duration * 1e6) if known else begun
