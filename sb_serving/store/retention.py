"""Keeps `skills.db` from growing where nothing is lost by it.

Old hours of `skill_hour` become days: windows are never asked for by the hour that far back, and
the sums that the views show stay what they are.
"""

from __future__ import annotations

import sqlite3
from datetime import date

from sb_serving import sql
from sb_serving.store import connection as connections
from sb_serving.store import migrate
from sb_serving.store.recorder import Store


def hours_to_merge(connection: sqlite3.Connection, before: date) -> int:
    """How many rows of `skill_hour` are hours of days before `before`, not merged yet."""
    (rows,) = connection.execute(
        "select count(*) from skill_hour where hour < ? and substr(hour, 12) <> '00'",
        (before.isoformat(),),
    ).fetchone()
    return int(rows)


def merge_hours(store: Store, before: date) -> int:
    """Merge the hours of each day before `before` into its first, day by day.

    A late row makes an hour of its own again; the next run merges it. Each day is one transaction.

    Returns:
        How many rows there are fewer.

    Raises:
        SbError: The database cannot be written.
    """
    before_rows = _rows(store)
    with connections.explained(store.path):
        days = store.connection.execute(
            "select distinct substr(hour, 1, 10) from skill_hour"
            " where hour < ? and substr(hour, 12) <> '00' order by 1",
            (before.isoformat(),),
        ).fetchall()
    for (day,) in days:
        with connections.transaction(store.connection, store.path):
            for statement in migrate.statements(sql.load("store/merge_hours.sql")):
                store.connection.execute(statement, {"day": day} if ":day" in statement else {})
    return before_rows - _rows(store)


def _rows(store: Store) -> int:
    with connections.explained(store.path):
        return int(store.connection.execute("select count(*) from skill_hour").fetchone()[0])
