"""`write_back`: the results, brought back into the tables of `skills.db` that are meant for them.

So the V4 views and other tools that read `skills.db` see what the warehouse knows. Here: which
tables, and which of their rows can have changed. How rows are compared and written is in
`sb_serving.store.derived`; a table's rows are `sql/write_back/<table>.sql`.

To add a table: its file, whose columns are V4's (the key's first, sorted by it), and a line in
`TABLES`. Its asset must set a watermark: without it the table counts as not computed yet, and what
is in `skills.db` stays.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb

from sb_pipelines.resources import (
    OWNERS,
    POOL,
    RETRIES,
    SkillsDb,
    Warehouse,
    one_row,
    set_watermark,
    user_failures,
    watermark,
)
from sb_serving import sql, times
from sb_serving.errors import SbError
from sb_serving.settings import Settings
from sb_serving.store import Store, derived
from sb_serving.store.derived import Brought, Table

SERIES = Table("skill_time_series", key=("skill_name", "timestamp"))

TABLES = {
    SERIES: "series",
    Table(
        "skill_metrics_cache", key=("skill_name",), stamp="updated_at", rows_are_ours=False
    ): "totals",
    Table("skill_community_baselines", key=("skill_name",), stamp="last_updated"): (
        "skill_community_baselines"
    ),
    Table("skill_dependencies", key=("skill_a", "skill_b"), stamp="last_updated"): (
        "skill_dependencies"
    ),
    Table("skill_clusters", key=("cluster_id",)): "skill_clusters",
    Table("skill_cluster_membership", key=("skill_name", "cluster_id")): (
        "skill_cluster_membership"
    ),
    Table("skill_anomalies", key=("id",)): "skill_anomalies",
}
"""Table -> the watermark that says that it was computed; a table after those that it refers to."""

MANY_HOURS = 50_000
"""From so many changed hours of skills on, all of skill_time_series is compared: one reading is
cheaper than very many look-ups."""

_log = logging.getLogger(__name__)


def write_back(
    connection: duckdb.DuckDBPyConnection, store: Store, now: datetime
) -> dict[str, Brought]:
    """Bring what changed into `skills.db`; call it in a transaction of the warehouse.

    The hours that were brought are forgotten in that transaction: a run that is killed brings them
    again, which changes nothing where they were brought.

    Args:
        connection: The warehouse, for writing.
        store: The event store, open for writing.
        now: The moment that windows end at.

    Returns:
        What was done, by table.

    Raises:
        SbError: The event store cannot be written.
    """
    # An empty store has nothing to bring; a table that was never computed is not known to be empty.
    tables = [table for table, name in TABLES.items() if watermark(connection, name)[1] is not None]
    now = now.replace(tzinfo=None)
    tables = [table for table in tables if _may_differ(connection, table)]
    # What is gone leaves before what it refers to; what is new comes after it.
    gone = {
        table.name: _bring(connection, store, table, now, only_gone=True)
        for table in reversed(tables)
        if table is not SERIES and table.rows_are_ours
    }
    done = {
        table.name: gone.get(table.name, Brought())
        + (
            _series(connection, store, now)
            if table is SERIES
            else _bring(connection, store, table, now)
        )
        for table in tables
    }
    for table in tables:
        set_watermark(connection, _mark(table), *watermark(connection, TABLES[table]))
    return done


def _may_differ(connection: duckdb.DuckDBPyConnection, table: Table) -> bool:
    """Whether a table was computed since it was brought; the slow ones are once an hour.

    The series knows its changed hours, and counters of windows change with the clock.
    """
    if table is SERIES or not table.rows_are_ours:
        return True
    return watermark(connection, TABLES[table]) != watermark(connection, _mark(table))


def _mark(table: Table) -> str:
    """The watermark of what was brought."""
    return f"{table.name}, written back"


def _bring(
    connection: duckdb.DuckDBPyConnection,
    store: Store,
    table: Table,
    now: datetime,
    **how: Any,
) -> Brought:
    query = sql.load(f"write_back/{table.name}.sql")
    wanted = connection.execute(query, {"now": now} if "$now" in query else None)
    columns = [column[0] for column in wanted.description or ()]
    return derived.bring(store, table, columns, _fetched(wanted), **how)


def _fetched(result: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    while rows := result.fetchmany(derived.CHUNK):
        yield from rows


def _series(connection: duckdb.DuckDBPyConnection, store: Store, now: datetime) -> Brought:
    """Bring the changed hours; all of them where they are many or `skills.db` was changed."""
    (changed,) = one_row(connection, "select count(*) from changed_hours")
    few = changed < MANY_HOURS
    done = Brought()
    if few:
        hours = connection.execute(
            "select skill_name, strftime(hour, '%Y-%m-%dT%H:%M:%S.000000+00:00') from changed_hours"
        ).fetchall()
        present = sql.load("store/series_of_hours.sql")
        parameters = {"hours": json.dumps(hours)}
        done += _bring(connection, store, SERIES, now, present=present, parameters=parameters)
    if not few or derived.count(store, SERIES.name) != _expected(connection, store):
        if few:
            _log.info("comparing all of skill_time_series: %s was changed", store.path)
        connection.execute("delete from changed_hours")
        connection.execute(
            "insert into changed_hours select distinct skill_name, hour from skill_time_series"
        )
        done += _bring(connection, store, SERIES, now)
    connection.execute("delete from changed_hours")
    return done


def _expected(connection: duckdb.DuckDBPyConnection, store: Store) -> int:
    """How many rows skill_time_series of the event store is to have."""
    known = derived.known_skills(store.connection)
    rows = connection.execute(
        "select skill_name, count(distinct hour) from skill_time_series group by skill_name"
    ).fetchall()
    return sum(hours for name, hours in rows if name in known)


@contextmanager
def _published_anyway() -> Iterator[None]:
    try:
        yield
    except SbError as error:
        raise SbError(
            f"the snapshot was published, but results were not written back: {error.message}",
            fix=f"{error.fix} Or turn it off: write_back = false.".strip(),
        ) from error


@dg.asset(
    name="write_back",
    deps=["published_snapshot"],
    group_name="serving",
    owners=OWNERS,
    kinds={"sqlite", "duckdb"},
    pool=POOL,
    retry_policy=RETRIES,
)
def written_back(skills: SkillsDb, warehouse: Warehouse) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """The derived tables of `skills.db`, brought up to the warehouse: only rows that changed.

    At most 5,000 rows a transaction, in turn with the recorders.
    """
    with (
        user_failures(retry=True),
        warehouse.writing() as connection,
        _published_anyway(),
        Store.open(Path(skills.path)) as store,
    ):
        done = write_back(connection, store, times.now())
    return dg.MaterializeResult(
        metadata={
            "rows_written": sum(table.written for table in done.values()),
            "rows_removed": sum(table.removed for table in done.values()),
            "tables": dg.MetadataValue.json({name: asdict(table) for name, table in done.items()}),
        }
    )


def defs(settings: Settings) -> dg.Definitions:
    """The asset, unless the setting turns it off."""
    return dg.Definitions(assets=[written_back] if settings.write_back else [])
