"""The live side: reads `skills.db` each second and makes the frame of that moment.

Queries on `skills.db` for serving belong here, with what must be carried from one tick to the next.
The arithmetic is in `frame.py`, the file's own rules (opening, waiting, schema) in `store/`, what
is answered from the numbers in `answers/`.

All numbers of a frame are read in one transaction. Three things are carried over, because reading
them anew would cost more than the rest together; each is thrown away when it could be wrong:

- the totals: a snapshot's, plus every row with an id above its watermark;
- the rows of the last hour, to which each tick adds the new ones;
- the sums of the whole hours of the last day, until a row arrives that lies in one of them.
"""

from __future__ import annotations

import json
import logging
import re
import sqlite3
import threading
import weakref
from bisect import bisect_right
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from sb_serving import sql, times
from sb_serving.errors import SbError
from sb_serving.frame import (
    NOTHING,
    PERCENTILES,
    Frame,
    Row,
    SkillWindow,
    Total,
    TotalKey,
    between,
    ranked,
    summed,
    windows_of_rows,
    windows_of_sums,
)
from sb_serving.settings import Settings
from sb_serving.snapshot import Snapshot, SnapshotHolder
from sb_serving.store.connection import connect_readonly, missing
from sb_serving.store.identity import Identity
from sb_serving.store.pruning import pruned_through

HOUR = timedelta(hours=1)
DAY = timedelta(hours=24)
ACTIVE = timedelta(minutes=15)
"""A session is active while its latest invocation is not older than this."""
IDLE = 2
"""Connections for questions that stay open between them."""
BUSY_MILLISECONDS = 1_000
"""How long a tick waits for a locked database before it says so."""
_ROUNDING = 1e-6
_HASHED = re.compile(r"[0-9a-f]{32}")

log = logging.getLogger(__name__)


class HasStore(Protocol):
    """Anything that knows where the event store is; `settings.Settings` does."""

    @property
    def skills_db(self) -> Path:
        """The event store."""


class State(NamedTuple):
    """Where the log stands; see `sql/live/state.sql`."""

    last_id: int
    last_at: str | None
    """Canonical; None where the newest row's time cannot be read."""
    migrated: str | None


class Pieces(NamedTuple):
    """A window as whole hours and parts of hours.

    Attributes:
        first: First whole hour, `YYYY-MM-DDTHH`.
        last: Last whole hour, the one in which the window ends; before `first` where there is none.
        parts: (after, until, sign): rows in (after, until] to add (1) or to take away (-1).
    """

    first: str
    last: str
    parts: tuple[tuple[str, str, int], ...]


def pieces(start: datetime, end: datetime) -> Pieces:
    """Cut the window (start, end] so that few single rows must be read.

    Of the hour in which it starts, the shorter part is read and added or taken away. The hour in
    which it ends is taken whole and what lies after the end is taken away: while the end is now,
    that is nothing.
    """
    begin = start.replace(minute=0, second=0, microsecond=0)
    begin_text = _hour_text(begin)
    start_text = times.to_utc_text(start)
    end_begin = end.replace(minute=0, second=0, microsecond=0)
    if start - begin <= HOUR / 2:
        first = begin
        start_part = (begin_text, start_text, -1)
    else:
        first = begin + HOUR
        start_part = (start_text, _hour_text(first), 1)
    end_part = (times.to_utc_text(end), _hour_text(end_begin + HOUR), -1)
    return Pieces(_hour_text(first), _hour_text(end_begin), (start_part, end_part))


class Reading:
    """One read transaction on `skills.db`: everything asked of it belongs to one moment."""

    def __init__(self, connection: sqlite3.Connection, file: tuple[int, ...] = ()) -> None:
        self._connection = connection
        self.file = file
        """Device and number of the file that it reads."""

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection, in its transaction."""
        return self._connection

    def state(self) -> State:
        """The newest row, and what tells that the file was migrated."""
        last_id, last_at, migrated = self._rows("state")[0]
        return State(last_id, _canonical(last_at), migrated)

    def row_mark(self, row_id: int) -> str | None:
        """What a row is about; None where there is no such row."""
        rows = self._rows("row_mark", id=row_id)
        return rows[0][0] if rows else None

    def windows(self, start: datetime, end: datetime) -> tuple[SkillWindow, ...]:
        """Every skill with an invocation in (start, end]: exact sums, no percentiles or sessions.

        Args:
            start: Aware UTC time, not included.
            end: Aware UTC time, included.
        """
        cut = pieces(start, end)
        sums = summed([(self.hours(cut.first, cut.last), 1), *self.parts(cut)])
        return windows_of_sums(sums, self.last_times(start, end, sums.keys()))

    def details(
        self, windows: Iterable[SkillWindow], start: datetime, end: datetime
    ) -> tuple[SkillWindow, ...]:
        """The same windows with percentiles and distinct sessions, counted from single rows."""
        windows = tuple(windows)
        found = {
            row[0]: row[1:]
            for row in self._rows(
                "window_details",
                after=times.to_utc_text(start),
                until=times.to_utc_text(end),
                skills=json.dumps([window.skill_name for window in windows]),
            )
        }
        return tuple(_with_details(window, found.get(window.skill_name)) for window in windows)

    def hours(self, first: str, last: str) -> list[tuple[Any, ...]]:
        """Whole hours from `skill_hour`, both ends included; see `sql/live/hours.sql`."""
        return self._rows("hours", first=first, last=last)

    def parts(self, cut: Pieces) -> list[tuple[list[tuple[Any, ...]], int]]:
        """The partial hours of a window, each with its sign."""
        return [
            (self._rows("part_hour", after=after, until=until), sign)
            for after, until, sign in cut.parts
        ]

    def last_times(
        self,
        start: datetime,
        end: datetime,
        names: Collection[str],
        known: Iterable[SkillWindow] = (),
    ) -> dict[str, str]:
        """Latest start of each named skill in (start, end].

        Args:
            start: Aware UTC time, not included.
            end: Aware UTC time, included.
            names: The skills.
            known: Windows with the same end whose latest starts are known already.
        """
        after, until = times.to_utc_text(start), times.to_utc_text(end)
        found = dict(self._rows("last_times", after=after))
        found |= {window.skill_name: window.last_invoked_at for window in known}
        for name in names:
            if found.get(name, "") > until:
                rows = self._rows("last_time", after=after, until=until, skill_name=name)
                found[name] = rows[0][0] if rows else None
        return {name: text for name, text in found.items() if text is not None}

    def rows_since(self, start: str) -> list[Row]:
        """All rows that start after a time, in time order."""
        return [Row._make(row) for row in self._rows("window_rows", start=start)]

    def new_rows(self, after: int, start: str) -> list[Row]:
        """Rows with an id above `after` that start after a time."""
        return [Row._make(row) for row in self._rows("new_rows", after=after, start=start)]

    def new_totals(self, after: int, hour: str) -> tuple[dict[TotalKey, Total], bool]:
        """Rows with an id above `after`, counted, and whether one lies before an hour.

        Args:
            after: Last id that is counted already.
            hour: `YYYY-MM-DDTHH`.

        Returns:
            The totals of the new rows, and True if one of them lies before the hour or has a time
            of a form for which that cannot be told.
        """
        rows = self._rows("new_totals", after=after, hour=hour)
        readable = _readable({row[4] for row in rows if row[4] is not None})
        totals: dict[TotalKey, Total] = {}
        for skill, kind, phase, outcome, unusual, _, n, duration_n, duration_sum, *le in rows:
            if unusual is None or unusual in readable:
                new = Total(n, duration_n, duration_sum, tuple(map(int, le)))
                key = (skill, kind, phase, outcome)
                totals[key] = totals.get(key, NOTHING) + new
        return totals, any(row[5] or row[4] is not None for row in rows)

    def pruned_totals(self) -> dict[TotalKey, Total]:
        """The totals of rows that were pruned; empty where none were."""
        if pruned_through(self._connection) is None:
            return {}
        return {
            (skill, kind, phase, outcome): Total(n, duration_n, duration_sum, tuple(le))
            for skill, kind, phase, outcome, n, duration_n, duration_sum, *le in self._rows(
                "pruned_totals"
            )
        }

    def _rows(self, name: str, **parameters: Any) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql.load(f"live/{name}.sql"), parameters).fetchall()


@dataclass(slots=True)
class _Carried:
    """What one tick leaves for the next; valid for one file, one schema and one log."""

    file: tuple[int, int]
    migrated: str | None
    last_id: int = 0
    mark: str | None = None
    base: int | None = None
    """Number of the snapshot under the totals; None for none, -1 before the first tick."""
    totals: dict[TotalKey, Total] = field(default_factory=dict)
    total_invocations: int = 0
    rows: list[Row] = field(default_factory=list)
    """Rows after `rows_after`, in time order, those of the future too."""
    rows_after: str = ""
    rows_until: str = ""
    """Where the last hour ended; rows after it are of the future."""
    hour: dict[str, SkillWindow] = field(default_factory=dict)
    """The skills of the last hour."""
    closed: tuple[str, str, list[tuple[Any, ...]]] | None = None
    """First and last of the whole hours before the current one, and their sums."""


class Live:
    """Follows `skills.db`; the only maker of frames.

    One thread ticks; any number may read `frame` and use `reading`.

    Args:
        paths: Knows where the event store is, for example `Settings`.
        snapshots: The published results; polled at each tick.
    """

    def __init__(self, paths: HasStore, snapshots: SnapshotHolder) -> None:
        self.path = paths.skills_db
        self._identity_key: Path | None = getattr(paths, "identity_key", None)
        self.snapshots = snapshots
        self.frame = Frame(at=times.now_text(), stale_reason="nothing was read yet")
        """The newest frame."""
        self._lock = threading.Lock()
        self._idle: deque[tuple[tuple[int, ...], sqlite3.Connection]] = deque()
        """Open connections that nobody reads with, each with the file as it was."""
        weakref.finalize(self, _close_all, self._idle)
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, ...] = ()
        self._carried: _Carried | None = None
        self._has_read = False
        self._foreign: int | None = None

    def tick(self, now: datetime | None = None) -> Frame:
        """Read everything once and make a frame.

        Args:
            now: Where the windows end, aware; None for the current time.

        Returns:
            The frame. If the database cannot be read, the last one with the reason in
            `stale_reason`.

        Raises:
            SbError: It cannot be read, and never could: there are no numbers to show.
        """
        moment = times.from_text(times.to_utc_text(now)) if now else times.now()
        with self._lock:
            self.snapshots.poll()
            try:
                frame = self._read(moment)
            except sqlite3.Error as error:
                self._disconnect()
                return self._failed(moment, _explained(self.path, error), error)
            except SbError as error:
                self._disconnect()
                return self._failed(moment, error, error)
            if self._has_read and self.frame.stale_reason:
                log.info("%s can be read again", self.path)
            self._has_read = True
            self.frame = frame
            return frame

    def latest(self) -> Frame:
        """The newest frame; makes the first one where nothing ticks yet.

        Raises:
            SbError: There is no frame yet, and the database cannot be read.
        """
        return self.frame if self._has_read else self.tick()

    @contextmanager
    def reading(self) -> Iterator[Reading]:
        """A read transaction of one's own, for questions that the frame does not answer.

        Raises:
            SbError: The database cannot be read.
        """
        file, connection = self._taken()
        try:
            connection.execute("begin")
            yield Reading(connection, file[:2])
            connection.execute("rollback")
        except sqlite3.Error as error:
            connection.close()
            raise _explained(self.path, error) from error
        except BaseException:
            connection.close()
            raise
        self._idle.append((file, connection))
        if len(self._idle) > IDLE:
            _close_all(self._idle, IDLE)

    def user(self, name: str) -> str:
        """A user as recorded: a name is hashed, 32 hex digits are taken for such a hash.

        Returns:
            '' where there is no key yet, so that nobody can have been recorded under it.

        Raises:
            SbError: The key cannot be read.
        """
        if not name or _HASHED.fullmatch(name):
            return name
        if self._identity_key is None or not self._identity_key.exists():
            return ""
        return Identity.load(self._identity_key).user(name)

    def close(self) -> None:
        """Close the database; the next tick or question would open it again."""
        with self._lock:
            self._disconnect()
        _close_all(self._idle)

    def _taken(self) -> tuple[tuple[int, ...], sqlite3.Connection]:
        """A connection for one reader, kept open from an earlier one where that still holds.

        Opening anew costs more than most questions, because SQLite then reads the whole schema.
        A file that changed otherwise than through its log of changes (replaced, overwritten,
        checkpointed) is opened anew.
        """
        try:
            status = self.path.stat()
        except OSError:
            raise missing(self.path) from None
        file = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
        while self._idle:
            try:
                opened, connection = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            if opened == file:
                return file, connection
            connection.close()
        connection = connect_readonly(self.path)
        _prepare(connection)
        return file, connection

    # --- one tick ---------------------------------------------------------------------------------

    def _read(self, now: datetime) -> Frame:
        connection, file = self._connected()
        # Taken before the transaction begins, so that every row of the snapshot is in it.
        snapshot = self.snapshots.current
        connection.execute("begin")
        try:
            reading = Reading(connection)
            state = reading.state()
            base = snapshot if snapshot and self._belongs(snapshot, state) else None
            carried = self._carry_over(reading, file, state)
            if _fold(reading, carried, base, state.last_id, _hour_text(now)):
                carried.closed = None
            frame = self._frame(reading, carried, snapshot, state, now)
            if state.last_id != carried.last_id:
                carried.last_id = state.last_id
                carried.mark = reading.row_mark(state.last_id)
            # Only now: a tick that failed halfway is repeated from where the last one ended.
            self._carried = carried
            return frame
        finally:
            if connection.in_transaction:
                connection.execute("rollback")

    def _frame(
        self,
        reading: Reading,
        carried: _Carried,
        snapshot: Snapshot | None,
        state: State,
        now: datetime,
    ) -> Frame:
        present = _follow(reading, carried, now - HOUR, now)
        hour = ranked(carried.hour.values())
        active = _place(present, times.to_utc_text(now - ACTIVE))
        start = now - DAY
        cut = pieces(start, now)
        closed = _closed_hours(reading, carried, cut)
        sums = summed([(closed, 1), (reading.hours(cut.last, cut.last), 1), *reading.parts(cut)])
        manifest = snapshot.manifest if snapshot else None
        return Frame(
            at=times.to_utc_text(now),
            snapshot_number=manifest.number if manifest else None,
            snapshot_published_at=manifest.published_at if manifest else None,
            watermark_id=manifest.watermark_id if manifest else 0,
            last_event_id=state.last_id,
            last_event_at=state.last_at,
            hour=hour,
            day=windows_of_sums(sums, reading.last_times(start, now, sums.keys(), hour)),
            totals=MappingProxyType(carried.totals),
            active_sessions=len({row.session_id for row in present[active:]}),
            anomalies=snapshot.anomalies if snapshot else (),
            total_invocations=carried.total_invocations,
        )

    def _carry_over(self, reading: Reading, file: tuple[int, int], state: State) -> _Carried:
        """A copy of what the last tick left, or a fresh start where it no longer holds."""
        carried = self._carried
        if (
            carried is not None
            and carried.file == file
            and carried.migrated == state.migrated
            and (not carried.last_id or reading.row_mark(carried.last_id) == carried.mark)
        ):
            return replace(carried)
        if carried is not None:
            log.warning("%s was replaced or migrated; counting anew", self.path)
        return _Carried(file, state.migrated, base=-1)

    def _belongs(self, snapshot: Snapshot, state: State) -> bool:
        """Whether the snapshot can be of this log."""
        manifest = snapshot.manifest
        if self._foreign == manifest.number:
            return False  # also when the log has grown past its watermark meanwhile
        if manifest.watermark_id > state.last_id:
            self._foreign = manifest.number
            log.warning(
                "snapshot %d covers rows up to %d, but %s ends at %d: it is of another log;"
                " totals are counted without it",
                manifest.number,
                manifest.watermark_id,
                self.path,
                state.last_id,
            )
        return self._foreign != manifest.number

    def _connected(self) -> tuple[sqlite3.Connection, tuple[int, int]]:
        """The connection and which file it reads; opened anew when the file was replaced."""
        try:
            status = self.path.stat()
        except OSError:
            raise missing(self.path) from None
        file = (status.st_dev, status.st_ino)
        if self._connection is None or self._file != file:
            self._disconnect()
            self._connection = connect_readonly(self.path)
            _prepare(self._connection)
            self._file = file
        return self._connection, file

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _failed(self, now: datetime, problem: SbError, cause: Exception) -> Frame:
        reason = str(problem)
        if self.frame.stale_reason != reason:
            log.error("no new frame: %s", reason)
        if self._has_read:
            self.frame = self.frame.stale(reason)
            return self.frame
        self.frame = Frame(at=times.to_utc_text(now), stale_reason=reason)
        raise problem from cause


def _close_all(idle: deque[tuple[tuple[int, ...], sqlite3.Connection]], leave: int = 0) -> None:
    """Close idle connections, the oldest first."""
    while len(idle) > leave:
        try:
            _, connection = idle.popleft()
        except IndexError:  # another thread was faster
            return
        connection.close()


def open_live(db_path: Path | str | None = None) -> Live:
    """The live side of one event store, for the Python API.

    Args:
        db_path: The event store; None for the one of the settings. Snapshots and the identity key
            are looked for beside it.
    """
    settings = Settings.load()
    if db_path is not None:
        path = Path(db_path).expanduser().absolute()
        # The snapshots of another store would be added to this one's counts.
        settings = replace(
            settings,
            skills_db=path,
            snapshots=path.parent / "snapshots",
            identity_key=path.parent / "identity.key",
        )
    return Live(settings, SnapshotHolder(settings.snapshots))


def _fold(
    reading: Reading, carried: _Carried, snapshot: Snapshot | None, last_id: int, hour: str
) -> bool:
    """Bring the totals up to `last_id`.

    Returns:
        Whether sums of hours before `hour` may have changed.
    """
    number = snapshot.manifest.number if snapshot else None
    changed = number != carried.base
    if changed:
        before, after = (
            (dict(snapshot.totals), snapshot.manifest.watermark_id)
            if snapshot
            else (reading.pruned_totals(), 0)
        )
    else:
        before, after = carried.totals, carried.last_id
    late = changed
    if last_id > after or changed:
        new, has_late = reading.new_totals(after, hour) if last_id > after else ({}, False)
        totals = dict(before)
        for key, total in new.items():
            totals[key] = totals.get(key, NOTHING) + total
        if changed:
            _never_fall(totals, carried.totals)
        carried.totals = totals
        carried.total_invocations = sum(total.n for total in totals.values())
        carried.base = number
        late = late or has_late
    return late


def _never_fall(totals: dict[TotalKey, Total], before: Mapping[TotalKey, Total]) -> None:
    """Undo what only rounding took away.

    The warehouse adds the same durations in another order. A sum that falls by a trillionth reads
    as a counter that began again at 0.
    """
    for key, old in before.items():
        new = totals.get(key)
        if new is None or new.n < old.n:
            continue
        lost = old.duration_sum - new.duration_sum
        if 0 < lost <= _ROUNDING * max(1.0, old.duration_sum):
            totals[key] = replace(new, duration_sum=old.duration_sum)


def _follow(reading: Reading, carried: _Carried, start: datetime, now: datetime) -> list[Row]:
    """Bring the rows after `start` and the hour's windows up to date.

    Only the skills of which a row came or went are counted anew: at a steady load these are few.

    Returns:
        The rows in (start, now], in time order.
    """
    after, until = times.to_utc_text(start), times.to_utc_text(now)
    old = carried.rows
    if (
        not carried.rows_after or after < carried.rows_after
    ):  # first tick, or the clock was set back
        rows = reading.rows_since(after)
        changed = {row.skill_name for row in rows} | carried.hour.keys()
    else:
        gone = _place(old, after)
        new = reading.new_rows(carried.last_id, after)
        rows = sorted(old[gone:] + new) if new else old[gone:]
        from_there, to_here = sorted((_place(old, carried.rows_until), _place(old, until)))
        moved = (old[:gone], old[from_there:to_here], new)
        changed = {row.skill_name for part in moved for row in part}
    present = rows[: _place(rows, until)]
    hour = {name: window for name, window in carried.hour.items() if name not in changed}
    for window in windows_of_rows(row for row in present if row.skill_name in changed):
        hour[window.skill_name] = window
    carried.rows, carried.rows_after, carried.rows_until = rows, after, until
    carried.hour = hour
    return present


def _place(rows: list[Row], text: str) -> int:
    """Where the rows that start later than a time begin."""
    return bisect_right(rows, (text, 2**63))


def _closed_hours(reading: Reading, carried: _Carried, cut: Pieces) -> list[tuple[Any, ...]]:
    """The whole hours before the current one, read once an hour and when a late row arrives."""
    last = _hour_text(_hour_of(cut.last) - HOUR)
    if carried.closed is None or carried.closed[:2] != (cut.first, last):
        carried.closed = (cut.first, last, reading.hours(cut.first, last))
    return carried.closed[2]


def _with_details(window: SkillWindow, found: tuple[Any, ...] | None) -> SkillWindow:
    if found is None:
        return replace(window, unique_sessions=0)
    sessions, n, *bounds = found
    values: list[float | None] = [None, None]
    if n:
        for index, share in enumerate(PERCENTILES):
            place = share * (n - 1)
            low, high = bounds[2 * index : 2 * index + 2]
            values[index] = between(low, high, place - int(place))
    return replace(window, unique_sessions=sessions, duration_p50=values[0], duration_p95=values[1])


def _readable(texts: set[str]) -> set[str]:
    """Those texts that the warehouse reads as a time.

    SQLite and DuckDB differ about odd forms, and a row that only one of them counts would make a
    counter jump when a snapshot is published. So DuckDB is asked, which is rarely needed.
    """
    if not texts:
        return set()
    import duckdb

    with duckdb.connect(":memory:") as connection:
        connection.execute("set TimeZone = 'UTC'")
        rows = connection.execute(
            sql.load("live/readable.sql"), {"texts": sorted(texts)}
        ).fetchall()
    return {row[0] for row in rows}


def _canonical(text: str | None) -> str | None:
    """A time in canonical form; None where it cannot be read."""
    try:
        return None if text is None else times.to_utc_text(text)
    except (ValueError, OverflowError):
        return None


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute(f"pragma busy_timeout = {BUSY_MILLISECONDS}")
    # One foreign row with broken text must not stop everything.
    connection.text_factory = lambda data: data.decode("utf-8", "replace")


def _hour_text(moment: datetime) -> str:
    return times.to_utc_text(moment)[:13]


def _hour_of(text: str) -> datetime:
    return times.from_text(f"{text}:00:00+00:00")


def _explained(path: Path, error: sqlite3.Error) -> SbError:
    text = str(error)
    if "no such table" in text or "no such column" in text:
        return SbError(
            f"{path} is not at the schema version that is needed ({text})",
            fix=f"Run `sb migrate up --db {path}`.",
        )
    if "locked" in text or "busy" in text:
        return SbError(
            f"{path} is locked by another program",
            fix=f"It is read again when that program is done; `fuser {path}` names it.",
        )
    return SbError(
        f"{path} cannot be read ({text})",
        fix=f"Run `sb doctor`; backups lie beside it as {path.name}.backup-*.",
    )
