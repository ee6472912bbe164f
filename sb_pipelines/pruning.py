"""Which days of the log may be pruned, and the run that prunes them.

A day may go when it is older than the setting says, the warehouse has counted each of its rows, and
every published snapshot that could be served holds them. What pruning does to the log lives in
`sb_serving.store.pruning`, what the warehouse takes over in `defs/events`.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

from sb_pipelines.defs import events
from sb_pipelines.resources import SkillsDb, Snapshots, Warehouse
from sb_serving import sql
from sb_serving.errors import SbError
from sb_serving.settings import Settings
from sb_serving.snapshot import watermarks_in
from sb_serving.store import Store, pruning
from sb_serving.store.connection import connect_readonly


@dataclass(frozen=True, slots=True)
class Prunable:
    """What a run would prune.

    Attributes:
        before: First UTC day that is kept in any case.
        days: The days, in order, with their rows.
        until: Rows up to this id are counted and published.
        waits: Why the days after them, which are old enough, must wait; empty where none must.
    """

    before: date
    days: tuple[tuple[date, int], ...]
    until: int
    waits: str

    @property
    def rows(self) -> int:
        """Rows of all of them."""
        return sum(n for _, n in self.days)


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a run pruned.

    Attributes:
        days: UTC days.
        rows: Rows taken out of the log.
        through: The mark afterwards, YYYY-MM-DD; None while nothing was ever pruned.
        waits: Why days that are old enough were left; empty where none were.
    """

    days: int
    rows: int
    through: str | None
    waits: str


def first_kept(settings: Settings, now: datetime) -> date:
    """The first UTC day of which no event is pruned.

    Raises:
        SbError: Pruning is off.
    """
    if not settings.keep_events_days:
        raise SbError(
            "keep_events_days = 0: single events are kept for ever",
            fix="Set it to a number of days from 90 on, for example SB_KEEP_EVENTS_DAYS=365.",
        )
    return (now - timedelta(days=settings.keep_events_days)).date()


def prunable(
    skills: SkillsDb, warehouse: Warehouse, snapshots: Snapshots, before: date
) -> Prunable:
    """Look which days before `before` may be pruned now; changes nothing.

    Raises:
        SbError: A file cannot be read, or there is no warehouse.
    """
    with warehouse.reading() as connection:
        return _prunable(connection, skills, snapshots, before)


def prune(skills: SkillsDb, warehouse: Warehouse, snapshots: Snapshots, before: date) -> Pruned:
    """Prune the days before `before`, each in a transaction of its own.

    Killed at any moment it leaves each day whole or pruned; the next run goes on. The warehouse is
    closed while the log is written, so that a refresh need not wait.

    Raises:
        SbError: A file cannot be read or written, or the warehouse is of another event store.
    """
    _take_over(skills, warehouse)
    with warehouse.reading() as connection:
        todo = _prunable(connection, skills, snapshots, before)
    days, rows, waits = 0, 0, todo.waits
    with Store.open(skills.path) as store:
        for day, _ in todo.days:
            with warehouse.reading() as connection:
                ids, hours = _day(connection, day)
            if not ids or ids[-1][0] > todo.until:
                waits = f"rows of {day} came or went meanwhile"
                break
            if not pruning.prune_day(store, day.isoformat(), ids, hours):
                waits = f"rows of {day} were taken out by another program meanwhile"
                break
            days, rows = days + 1, rows + len(ids)
    if days:
        _take_over(skills, warehouse)
    with closing(connect_readonly(Path(skills.path))) as connection:
        through = pruning.pruned_through(connection)
    return Pruned(days, rows, through, waits)


def _take_over(skills: SkillsDb, warehouse: Warehouse) -> None:
    with warehouse.writing() as connection:
        reason = events.replaced(connection, skills)
        if reason:
            raise SbError(
                f"{warehouse.path} was made from another event store than {skills.path} ({reason})",
                fix="Run `sb refresh`, then prune.",
            )


def _prunable(
    connection: duckdb.DuckDBPyConnection, skills: SkillsDb, snapshots: Snapshots, before: date
) -> Prunable:
    gone = {day.day: day.last_id for day in skills.pruned_days()}
    counted = _counted(connection)
    published = min(watermarks_in(Path(snapshots.folder)), default=0)
    top = skills.top()
    days, waits, until = [], "", min(counted, published)
    for moment, n, last_id in connection.execute(
        sql.load("warehouse/prunable_days.sql"), {"before": before}
    ).fetchall():
        day = moment.date()
        if last_id <= gone.get(day.isoformat(), 0):
            continue  # the warehouse has yet to hear of it
        if last_id > until:
            waits = (
                f"rows of {day} are not yet counted everywhere and in every snapshot;"
                " `sb refresh --models` counts them"
            )
            break
        if last_id >= top:
            waits = f"the newest row of the log is of {day}, and stays until there is a newer one"
            break
        days.append((day, int(n)))
    return Prunable(before, tuple(days), until, waits)


def _counted(connection: duckdb.DuckDBPyConnection) -> int:
    """The id up to which everything that grows from the events has counted them."""
    found = dict(connection.execute("select name, id from watermarks").fetchall())
    needed = ("events", "series", "totals", "sets", "predictor_totals")
    # The order of first uses begins with what was pruned, so it may also never have begun.
    order = found.get("order") or found.get("events", 0)
    return int(min(*(found.get(name, 0) for name in needed), order))


def _day(
    connection: duckdb.DuckDBPyConnection, day: date
) -> tuple[list[tuple[int, str]], list[tuple[Any, ...]]]:
    start = {"day": datetime(day.year, day.month, day.day)}  # noqa: DTZ001 (UTC without saying so)
    rows = connection.execute(sql.load("warehouse/pruned_rows.sql"), start).fetchall()
    hours = connection.execute(sql.load("warehouse/pruned_day_hours.sql"), start).fetchall()
    return rows, hours
