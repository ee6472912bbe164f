"""`session_skill`, `user_skill`, `pair_count`: who used what, and what was used together.

Three tables of small numbers that are only ever added to, so that whatever stands on all of history
(lift, clusters, baselines, similarity) costs the news and not the history. Here: the order in which
news are folded in. What a row is stands in `sql/warehouse/<table>.sql`.

Names are in `skill_key` (with the kind, to choose by), `session_key` and `user_key`.
"""

from collections.abc import Iterator

import dagster as dg
import duckdb

from sb_pipelines.resources import (
    OWNERS,
    POOL,
    RETRIES,
    Warehouse,
    one_row,
    set_watermark,
    user_failures,
    watermark,
)
from sb_serving import sql
from sb_serving.settings import Settings

KEYS = ("skill_key", "session_key", "user_key")
SETS = ("session_skill", "user_skill", "pair_count")

BATCH_IDS = 4_000_000
"""Ids folded at once: bounds the memory of a first load."""


def fold_sets(connection: duckdb.DuckDBPyConnection) -> int:
    """Add the events past the sets' watermark, in the caller's transaction.

    Returns:
        The watermark afterwards: every event up to this id is in.
    """
    after, _ = watermark(connection, "sets")
    known, at = watermark(connection, "events")
    for start in range(after, known, BATCH_IDS):
        _fold(connection, start, min(start + BATCH_IDS, known))
    set_watermark(connection, "sets", known, at)
    return known


def _fold(connection: duckdb.DuckDBPyConnection, after: int, until: int) -> None:
    def load(table: str) -> str:
        return sql.load(f"warehouse/{table}.sql")

    connection.execute(
        "create or replace temp table set_news as " + load("set_news"),
        {"after": after, "until": until},
    )
    for table in (*KEYS, "user_skill"):
        connection.execute(f"insert into {table} {load(table)}")
    # Pairs need the sessions as they were and what is new of them; only then the two become one.
    connection.execute("create or replace temp table new_session_skill as " + load("session_skill"))
    connection.execute("create or replace temp table new_pairs as " + load("pair_count"))
    connection.execute(
        "update pair_count set n = pair_count.n + new_pairs.n from new_pairs"
        " where pair_count.a = new_pairs.a and pair_count.b = new_pairs.b"
    )
    connection.execute(
        "insert into pair_count select a, b, n from new_pairs where not exists"
        " (select 1 from pair_count o where o.a = new_pairs.a and o.b = new_pairs.b)"
    )
    connection.execute("insert into session_skill from new_session_skill order by all")
    for table in ("set_news", "new_session_skill", "new_pairs"):
        connection.execute(f"drop table {table}")


def _spec(table: str, description: str) -> dg.AssetSpec:
    return dg.AssetSpec(
        table,
        deps=["events"],
        group_name="series",
        owners=OWNERS,
        kinds={"duckdb"},
        description=description,
    )


@dg.multi_asset(
    specs=[
        _spec("session_skill", "One row per session and skill that it holds."),
        _spec("user_skill", "One row per known user, skill, and whether that use was decided."),
        _spec("pair_count", "One row per pair of skills: the sessions that hold both."),
    ],
    name="sets",
    pool=POOL,
    retry_policy=RETRIES,
)
def sets(warehouse: Warehouse) -> Iterator[dg.MaterializeResult]:  # type: ignore[type-arg]
    """Fold new events into the three tables, in one transaction."""
    with user_failures(), warehouse.writing() as connection:
        known = fold_sets(connection)
        rows = {
            table: one_row(connection, f"select count(*) from {table}")[0]  # noqa: S608
            for table in SETS
        }
    for table in SETS:
        yield dg.MaterializeResult(
            asset_key=table, metadata={"dagster/row_count": rows[table], "watermark_id": known}
        )


def defs(settings: Settings) -> dg.Definitions:
    """The three assets, made by one step."""
    return dg.Definitions(assets=[sets])
