"""Takes old events out of the log and leaves their totals, a whole UTC day in one transaction.

Here: what one day's pruning does to `skills.db`, and how far it has come. Which days may go,
because the warehouse has counted them and a snapshot serves them, is decided in
`sb_pipelines.pruning`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from sb_serving import sql
from sb_serving.store import connection as connections
from sb_serving.store import migrate

if TYPE_CHECKING:
    from sb_serving.store.recorder import Store


@dataclass(frozen=True, slots=True)
class PrunedDay:
    """One UTC day that was pruned.

    Attributes:
        day: YYYY-MM-DD.
        n: Rows taken out of the log.
        last_id: Rows of the day up to this id are gone.
    """

    day: str
    n: int
    last_id: int


def pruned_through(connection: sqlite3.Connection) -> str | None:
    """The mark: events of this UTC day (YYYY-MM-DD) and earlier ones were pruned; None for none."""
    if not migrate.is_pruned(connection):
        return None
    (day,) = connection.execute("select max(day) from sb_pruned_days").fetchone()
    return None if day is None else str(day)


def pruned_days(connection: sqlite3.Connection) -> list[PrunedDay]:
    """The days that were pruned, in order."""
    if not migrate.is_pruned(connection):
        return []
    rows = connection.execute("select day, n, last_id from sb_pruned_days order by day")
    return [PrunedDay(*row) for row in rows]


def days_before(connection: sqlite3.Connection, before: date) -> tuple[int, int]:
    """How many rows of the log start before a day, by their text, and on how many days."""
    rows, days = connection.execute(
        "select count(*), count(distinct substr(invoked_at, 1, 10)) from skill_invocation"
        " where invoked_at < ?",
        (before.isoformat(),),
    ).fetchone()
    return int(rows), int(days)


def prune_day(
    store: Store,
    day: str,
    rows: Sequence[tuple[int, str]],
    hours: Sequence[tuple[Any, ...]],
) -> bool:
    """Take a day's rows out of the log and leave their totals, in one transaction.

    Views, counters over all time and `skill_hour` show what they showed before.

    Args:
        store: Open for writing.
        day: The UTC day, YYYY-MM-DD.
        rows: Id and start (canonical text) of each row to take out.
        hours: The day in `skill_time_series`, rows as in `sb_pruned_hours`; must count those rows
            and what was pruned of the day before.

    Returns:
        False if the log does not hold all of these rows any more; then nothing was changed.

    Raises:
        SbError: The database cannot be written.
    """
    execute, many = store.connection.execute, store.connection.executemany
    with connections.transaction(store.connection, store.path):
        if not migrate.is_pruned(store.connection):
            migrate.begin_pruning(store.connection)
        for table in ("pruning", "pruned_rows"):
            execute(f"drop table if exists temp.{table}")
        execute("create temp table pruning (id integer primary key, at text not null)")
        many("insert into temp.pruning values (?, ?)", rows)
        execute(sql.load("store/pruned_rows.sql"))
        (found,) = execute("select count(*) from temp.pruned_rows").fetchone()
        if found == len(rows):
            for statement in migrate.statements(sql.load("store/prune_day.sql")):
                execute(statement, {"day": day} if ":day" in statement else {})
            many(_INSERT_HOUR, hours)
        for table in ("pruning", "pruned_rows"):
            execute(f"drop table temp.{table}")
    return bool(found == len(rows))


_INSERT_HOUR = f"insert into sb_pruned_hours values ({', '.join('?' * 17)})"  # noqa: S608 (marks only)
