"""A log of runs as the warehouse reads it, and a snapshot of its totals."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import duckdb

from sb_pipelines.defs.predictor_totals import fold_totals
from sb_pipelines.resources import set_watermark
from sb_serving import sql
from sb_serving.snapshot import Snapshot, publish
from sb_serving.store import Store, reader

END = datetime(2026, 11, 22, 12, tzinfo=UTC)


def warehouse_of(store: Store, connection: duckdb.DuckDBPyConnection) -> int:
    """Make the warehouse's tables in a connection and fill `events`; returns the watermark."""
    connection.execute("set TimeZone = 'UTC'")
    connection.execute(sql.load("warehouse/schema.sql"))
    top = reader.max_id(store.connection)
    with reader.arrow_events(store.path, 0, top) as arriving:  # noqa: F841 (found by name)
        connection.execute(
            f"insert into events {sql.load('warehouse/events.sql')}", {"after": 0, "until": top}
        )
    connection.execute("delete from events where invoked_at is null")  # as `events.load` does
    return top


def snapshot_of(store: Store, folder: Path) -> Snapshot:
    top = reader.max_id(store.connection)

    def build(connection: duckdb.DuckDBPyConnection) -> None:
        warehouse_of(store, connection)
        set_watermark(connection, "events", top, None)
        fold_totals(connection)
        connection.execute("drop table events")

    path = publish(
        build, folder, watermark_id=top, watermark_at=END, published_at=END, code_version="test"
    )
    return Snapshot.open(path, int(path.stem))
