"""`predictor_totals`: the counts over all time that a live prediction starts from.

Here: how news are added. What a row is stands in `sql/warehouse/predictor_totals.sql`, the rest of
a live prediction in `sb_serving.predict`.
"""

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


def fold_totals(connection: duckdb.DuckDBPyConnection) -> int:
    """Add the events past the watermark, in the caller's transaction.

    Returns:
        The number of rows afterwards.
    """
    after, _ = watermark(connection, "predictor_totals")
    known, at = watermark(connection, "events")
    connection.execute(
        "create or replace temp table folded as " + sql.load("warehouse/predictor_totals.sql"),
        {"after": after, "until": known},
    )
    connection.execute(
        "update predictor_totals as t"
        " set n = t.n + f.n, completed = t.completed + f.completed, decided = t.decided + f.decided"
        " from folded f where t.code = f.code and t.scope = f.scope and t.key = f.key"
    )
    connection.execute(
        "insert into predictor_totals select * from folded f where not exists (select 1"
        " from predictor_totals t where t.code = f.code and t.scope = f.scope and t.key = f.key)"
    )
    connection.execute("drop table folded")
    set_watermark(connection, "predictor_totals", known, at)
    (rows,) = one_row(connection, "select count(*) from predictor_totals")
    return int(rows)


@dg.asset(
    deps=["events"],
    group_name="series",
    owners=OWNERS,
    kinds={"duckdb"},
    pool=POOL,
    retry_policy=RETRIES,
)
def predictor_totals(warehouse: Warehouse) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Runs, completed and decided ones, of each skill, user, version, phase, agent and model.

    Only events past the watermark are read; a live answer adds the rows after it.
    """
    with user_failures(), warehouse.writing() as connection:
        rows = fold_totals(connection)
    return dg.MaterializeResult(metadata={"dagster/row_count": rows})


def defs(settings: Settings) -> dg.Definitions:
    """The asset."""
    return dg.Definitions(assets=[predictor_totals])
