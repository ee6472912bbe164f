"""`session_skill` and the tables beside it: who used what, and what was used together.

Tables of small numbers that grow with the news, so that whatever stands on all of history
(lift, clusters, baselines, similarity) costs the news and not the history. Here: the order in which
news are folded in. What a row is stands in `sql/warehouse/<table>.sql`.

The order of first uses, `session_first_use` and `pair_order`, follows when the dependencies are
computed. Names are in `skill_key` (with the kind, to choose by), `session_key` and `user_key`.
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
SETS = ("session_skill", "skill_session_size", "user_skill", "pair_count")

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
    # Pairs and sizes need the sessions as they were and what is new of them; only then the two
    # become one.
    connection.execute("create or replace temp table new_session_skill as " + load("session_skill"))
    connection.execute(
        "create or replace temp table held as select session, skill from session_skill"
        " where session in (select session from new_session_skill)"
    )
    connection.execute("create or replace temp table session_growth as " + load("session_growth"))
    connection.execute("create or replace temp table new_sizes as " + load("skill_session_size"))
    connection.execute("delete from skill_session_size")
    connection.execute("insert into skill_session_size select skill, size, n from new_sizes")
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
    for table in (
        *("set_news", "new_session_skill", "held", "session_growth", "new_sizes", "new_pairs"),
    ):
        connection.execute(f"drop table {table}")


def fold_order(connection: duckdb.DuckDBPyConnection) -> int:
    """Bring the order of first uses up to the sets' watermark, in the caller's transaction.

    Sessions that the news touch are taken out as they were and put in as they are now, so a late
    event that makes another skill the first one is counted right.

    Returns:
        The watermark afterwards.
    """
    after, _ = watermark(connection, "order")
    known, at = watermark(connection, "sets")
    for start in range(after, known, BATCH_IDS):
        until = min(start + BATCH_IDS, known)
        connection.execute(
            "create or replace temp table news as " + sql.load("warehouse/first_uses.sql"),
            {"after": start, "until": until},
        )
        connection.execute(
            "create or replace temp table uses_before as select * from session_first_use"
            " where session in (select session from news)"
        )
        connection.execute(
            "create or replace temp table uses_after as"
            " select session, skill, min(first_at) as first_at"
            " from (select * from uses_before union all select * from news) uses"
            " group by session, skill"
        )
        connection.execute(
            "create or replace temp table counted as " + sql.load("warehouse/pair_order.sql")
        )
        connection.execute("delete from pair_order")
        connection.execute("insert into pair_order select * from counted")
        connection.execute(
            "delete from session_first_use where session in (select session from uses_before)"
        )
        connection.execute("insert into session_first_use select * from uses_after")
        for table in ("news", "uses_before", "uses_after", "counted"):
            connection.execute(f"drop table {table}")
    set_watermark(connection, "order", known, at)
    return known


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
        _spec("skill_session_size", "One row per skill and size of the sessions that hold it."),
        _spec("user_skill", "One row per known user, skill, and whether that use was decided."),
        _spec("pair_count", "One row per pair of skills: the sessions that hold both."),
    ],
    name="sets",
    pool=POOL,
    retry_policy=RETRIES,
)
def sets(warehouse: Warehouse) -> Iterator[dg.MaterializeResult]:  # type: ignore[type-arg]
    """Fold new events into the tables, in one transaction."""
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
    """The assets, made by one step."""
    return dg.Definitions(assets=[sets])
