"""`events`: a copy of the event store's log in the warehouse, grown by what is new.

Here: reading on from the watermark, and noticing that the event store is another one than last
time. What the rows mean is in `sql/warehouse/events.sql`; the count check is in `checks`.
"""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import dagster as dg
import duckdb

from sb_pipelines.resources import (
    OWNERS,
    POOL,
    RETRIES,
    SkillsDb,
    Warehouse,
    empty,
    one_row,
    set_watermark,
    user_failures,
    watermark,
)
from sb_serving import sql
from sb_serving.settings import Settings

BATCH_ROWS = 1_000_000
"""Ids read at once; the progress of a first load is told after each."""

SAMPLE_ROWS = 64
"""Ids compared at the start, the middle and the end of what is known."""

FULL_TAG = "sb/full"
"""A run with this tag reads everything anew."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What one load did.

    Attributes:
        watermark_id: Every row of the event store up to this id is in.
        watermark_at: The latest start among them, naive UTC; None while there is none.
        new_rows: Rows added, invalid ones included.
        rebuilt: Why the warehouse was rebuilt from scratch; empty where it was not.
    """

    watermark_id: int
    watermark_at: datetime | None
    new_rows: int
    rebuilt: str


def load(connection: duckdb.DuckDBPyConnection, skills: SkillsDb, *, full: bool = False) -> Loaded:
    """Append what the event store holds past the watermark, in the caller's transaction.

    Args:
        connection: The warehouse, for writing.
        skills: The event store.
        full: Read everything anew; so is everything derived then.

    Raises:
        SbError: There is no event store.
    """
    top = skills.top()
    applied_at = skills.applied_at()
    if full:
        # Before anything is asked of tables that may be what is wrong.
        rebuilt = "it was asked for"
    else:
        after, at = watermark(connection, "events")
        rebuilt = replaced(connection, skills) if after else ""
        if rebuilt:
            _log.warning("%s is another event store than before (%s)", skills.path, rebuilt)
    if rebuilt:
        _log.warning("rebuilding the warehouse from scratch")
        empty(connection)
        after, at = 0, None
    if not after:
        _take_over_pruned(connection, skills)
    connection.execute("delete from event_store")
    connection.execute("insert into event_store values (?)", [applied_at])
    rows_before = _count(connection)
    for start in range(after, top, BATCH_ROWS):
        until = min(start + BATCH_ROWS, top)
        at = max(filter(None, (at, _append(connection, skills, start, until))), default=None)
        if top - after > BATCH_ROWS:
            _log.info("read events up to id %s of %s", until, top)
    set_watermark(connection, "events", top, at)
    new_rows = _count(connection) - rows_before
    return Loaded(watermark_id=top, watermark_at=at, new_rows=new_rows, rebuilt=rebuilt)


def _append(
    connection: duckdb.DuckDBPyConnection, skills: SkillsDb, after: int, until: int
) -> datetime | None:
    """Add the rows with `after < id <= until`.

    Returns:
        The latest start among them; None where there is none.
    """
    _insert(connection, "insert into events ", skills, after, until)
    latest, unreadable = one_row(
        connection,
        "select max(invoked_at), count(*) - count(invoked_at) from events where id > ?",
        [after],
    )
    if unreadable:
        # Their text is not in events; reading the stream again is dear, but they are rare.
        with skills.arrow(after, until) as arriving:  # noqa: F841 (DuckDB finds it by its name)
            connection.execute(
                "insert into invalid_events " + sql.load("warehouse/invalid_events.sql")
            )
        connection.execute("delete from events where invoked_at is null")
    return latest if isinstance(latest, datetime) else None


def _insert(
    connection: duckdb.DuckDBPyConnection, into: str, skills: SkillsDb, after: int, until: int
) -> None:
    """Put the typed rows with `after < id <= until` where `into` says."""
    with skills.arrow(after, until) as arriving:  # noqa: F841 (DuckDB finds it by its name)
        connection.execute(
            into + sql.load("warehouse/events.sql"), {"after": after, "until": until}
        )


def replaced(connection: duckdb.DuckDBPyConnection, skills: SkillsDb) -> str:
    """Take over what was pruned, and find out whether the event store is the one that was read.

    Args:
        connection: The warehouse, for writing, in the caller's transaction.
        skills: The event store.

    Returns:
        Why it cannot be the one that was read up to the watermark; empty if it can.
    """
    while True:
        marks = _marks(skills)
        known, _ = watermark(connection, "events")
        reason = _take_over_pruned(connection, skills) or _differing(connection, skills, known)
        if not reason or _marks(skills) == marks:
            return reason
        # Somebody pruned while we looked.


def _marks(skills: SkillsDb) -> list[tuple[str, int, int]]:
    return [(day.day, day.n, day.last_id) for day in skills.pruned_days()]


def _pruned(connection: duckdb.DuckDBPyConnection) -> list[tuple[Any, ...]]:
    return connection.execute("select day, n, last_id from pruned_days order by day").fetchall()


def _take_over_pruned(connection: duckdb.DuckDBPyConnection, skills: SkillsDb) -> str:
    """Drop the events that were pruned from the event store, and copy what was left of them.

    What has grown from the events stays, because it counts them. What begins anew begins with what
    was left.

    Returns:
        Why that cannot be done; empty where it was, or where there is nothing new.
    """
    marks, known = _marks(skills), {row[0]: row for row in _pruned(connection)}
    if marks == list(known.values()):
        return ""
    new = [mark for mark in marks if known.get(mark[0]) != mark]
    now = {day: (n, last_id) for day, n, last_id in marks}
    if any(now.get(day, (0, 0)) < (n, last_id) for day, n, last_id in known.values()):
        return "days are back that had been pruned"
    until = max(last_id for _, _, last_id in new)
    behind = connection.execute(
        "select min(name) from watermarks where name in"
        " ('events', 'series', 'totals', 'sets', 'predictor_totals', 'order')"
        " and id > 0 and id < ?",
        [until],
    ).fetchall()[0][0]
    if behind:
        return f"rows up to id {until} were pruned, which {behind} had not counted"
    for table in (
        "pruned_days",
        "pruned_totals",
        "pruned_users",
        "pruned_sessions",
        "pruned_hours",
    ):
        connection.execute(f"delete from {table}")  # noqa: S608 (names of ours)
    connection.executemany("insert into pruned_days values (?, ?, ?)", marks)
    connection.execute(
        "delete from events using pruned_days p where events.id <= p.last_id"
        " and date_trunc('day', events.invoked_at) = cast(p.day as TIMESTAMP)"
    )
    for table, query, columns in (
        (
            "pruned_totals",
            "select * from sb_pruned_totals",
            "nullif(workflow_phase, '') as workflow_phase",
        ),
        ("pruned_users", "select * from sb_pruned_users", "user_id as user_id"),
        ("pruned_sessions", "select * from sb_pruned_sessions", "session_id as session_id"),
        (
            "pruned_hours",
            sql.load("store/pruned_hour_rows.sql"),
            "nullif(duration_p50, -1) as duration_p50, nullif(duration_p95, -1) as duration_p95",
        ),
    ):
        with skills.query(query) as arriving:  # noqa: F841 (DuckDB finds it by its name)
            connection.execute(
                f"insert into {table} select * replace ({columns}) from arriving"  # noqa: S608
            )
    _log.info("%s days were pruned from %s", len(new), skills.path)
    return ""


def _differing(connection: duckdb.DuckDBPyConnection, skills: SkillsDb, known: int) -> str:
    """Why the event store cannot be the one that was read up to id `known`; empty if it can."""
    top, applied_at = skills.top(), skills.applied_at()
    if top < known:
        return f"it ends at id {top}, the warehouse at {known}"
    here, there = _count(connection), skills.count_until(known)
    if here != there:
        return f"it holds {there} rows up to id {known}, the warehouse {here}"
    for until in sorted({min(SAMPLE_ROWS, known), max(known // 2, 1), known}):
        after = max(until - SAMPLE_ROWS, 0)
        _insert(connection, "create or replace temp table sample as ", skills, after, until)
        (differing,) = one_row(
            connection, sql.load("warehouse/replaced_rows.sql"), {"after": after, "until": until}
        )
        if differing:
            return f"{differing} of its rows {after + 1} to {until} differ from those read earlier"
    if connection.execute("select applied_at from event_store").fetchall() != [(applied_at,)]:
        return f"it was migrated at {applied_at}"
    return ""


def _count(connection: duckdb.DuckDBPyConnection) -> int:
    """Rows that were read so far, those pruned since among them."""
    (rows,) = one_row(
        connection,
        "select (select count(*) from events) + (select count(*) from invalid_events)"
        " + (select coalesce(sum(n), 0) from pruned_days)",
    )
    return int(rows)


@dg.asset(
    deps=["skills_db"],
    group_name="ingest",
    owners=OWNERS,
    kinds={"duckdb"},
    pool=POOL,
    retry_policy=RETRIES,
    freshness_policy=dg.FreshnessPolicy.time_window(
        fail_window=timedelta(hours=3), warn_window=timedelta(hours=2)
    ),
)
def events(
    context: dg.AssetExecutionContext, skills: SkillsDb, warehouse: Warehouse
) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """One row per invocation, appended by id from the event store.

    A row whose start cannot be read goes to `invalid_events`. An event store that was replaced is
    read from the beginning, and everything derived with it; so it is in a run with the tag
    `sb/full`.
    """
    full = FULL_TAG in context.run.tags
    with user_failures(), warehouse.writing(create=True) as connection:
        loaded = load(connection, skills, full=full)
        (rows,) = one_row(connection, "select count(*) from events")
        (invalid,) = one_row(connection, "select count(*) from invalid_events")
    metadata: dict[str, Any] = {
        "dagster/row_count": rows,
        "new_rows": loaded.new_rows,
        "invalid_rows": invalid,
        "watermark_id": loaded.watermark_id,
        "watermark_at": str(loaded.watermark_at),
    }
    if loaded.rebuilt:
        metadata["rebuilt"] = loaded.rebuilt
    return dg.MaterializeResult(metadata=metadata)


def defs(settings: Settings) -> dg.Definitions:
    """The event store as an external asset, and its copy."""
    skills_db = dg.AssetSpec(
        "skills_db",
        description="The event store, written by recorders and importers.",
        group_name="sources",
        owners=OWNERS,
        kinds={"sqlite"},
        metadata={"path": dg.MetadataValue.path(str(settings.skills_db))},
    )
    return dg.Definitions(assets=[skills_db, events])
