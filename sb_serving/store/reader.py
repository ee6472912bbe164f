"""Reads the event log in the order in which it was committed.

The watermark lives here and nowhere else: SQLite has one writer and hands ids out in commit order,
so "everything up to id W" is a complete prefix. A store on another engine would need another
watermark behind the same functions.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sb_serving import sql
from sb_serving.store.connection import connect_readonly

BATCH_ROWS = 65_536

__all__ = ["arrow", "arrow_events", "connect_readonly", "max_id"]


def max_id(connection: sqlite3.Connection) -> int:
    """The newest invocation's id, 0 for an empty log."""
    return int(
        connection.execute("select coalesce(max(id), 0) from skill_invocation").fetchone()[0]
    )


@contextmanager
def arrow_events(path: Path, after: int, until: int) -> Iterator[Any]:
    """Stream the rows with `after < id <= until` as Arrow, columns as in `event_rows.sql`.

    Args:
        path: The database.
        after: Watermark of what is known already.
        until: Last id to read.

    Yields:
        An object with `__arrow_c_stream__`, which DuckDB scans without a copy in Python.
    """
    # The driver binds no named parameters to a streaming query; both are integers of ours.
    query = sql.load("store/event_rows.sql")
    query = query.replace(":after", str(int(after))).replace(":until", str(int(until)))
    with arrow(path, query) as handle:
        yield handle


@contextmanager
def arrow(path: Path, query: str) -> Iterator[Any]:
    """Stream the rows of a query as Arrow; no column may hold NULL or values of two types.

    Args:
        path: The database.
        query: Without parameters.

    Yields:
        An object with `__arrow_c_stream__`.
    """
    import adbc_driver_sqlite
    from adbc_driver_manager import AdbcConnection, AdbcDatabase, AdbcStatement

    with (
        AdbcDatabase(
            driver=adbc_driver_sqlite._driver_path(), uri=f"file:{quote(str(path))}?mode=ro"
        ) as database,
        AdbcConnection(database) as connection,
        AdbcStatement(connection) as statement,
    ):
        statement.set_options(**{"adbc.sqlite.query.batch_rows": str(BATCH_ROWS)})
        statement.set_sql_query(query)
        handle, _ = statement.execute_query()
        yield handle
