"""The weekly audit: does what grew row by row equal what is counted from the beginning?

The recount runs the very functions of the assets on temporary tables of the same names, which
DuckDB finds before the real ones. It reads every event, so it is not part of a refresh.
"""

from datetime import datetime

import dagster as dg
import duckdb

from sb_pipelines.defs import time_series
from sb_pipelines.resources import POOL, Warehouse, one_row, set_watermark, user_failures, watermark
from sb_serving import sql
from sb_serving.settings import Settings

GROWN = ("skill_time_series", "skill_totals")

_NO_WINDOW = datetime.min  # every day lies past the recount's empty watermark  # noqa: DTZ901


def recount(connection: duckdb.DuckDBPyConnection) -> None:
    """Count the grown tables from all events, as temporary tables `recounted_<name>`.

    Args:
        connection: The warehouse; one for reading will do.
    """
    known, at = watermark(connection, "events")
    for table in ("watermarks", "changed_days", *GROWN):
        connection.execute(f"drop table if exists recounted_{table}")
        connection.execute(f"create temp table {table} as from {table} limit 0")
    # set_watermark needs a key to find the row by; a table made from another has none.
    connection.execute("create unique index watermark_name on temp.watermarks (name)")
    set_watermark(connection, "events", known, at)
    time_series.rebuild_days(connection, _NO_WINDOW, _NO_WINDOW)
    time_series.fold_totals(connection)
    for table in GROWN:
        connection.execute(f"alter table temp.{table} rename to recounted_{table}")
    for table in ("watermarks", "changed_days"):
        connection.execute(f"drop table temp.{table}")


def differing(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    """How many rows of a grown table differ from the recount, or stand on one side only."""
    (rows,) = one_row(connection, sql.load(f"warehouse/{table}_differing.sql"))
    return int(rows)


def equals_recount(table: str) -> dg.AssetChecksDefinition:
    """The audit of one grown table."""

    @dg.asset_check(
        asset=table,
        name="equals_recount",
        pool=POOL,
        description="Every row equals what is counted anew from all events.",
    )
    def check(warehouse: Warehouse) -> dg.AssetCheckResult:
        with user_failures(), warehouse.reading() as connection:
            recount(connection)
            rows = differing(connection, table)
        return dg.AssetCheckResult(
            passed=not rows,
            description=f"{rows} rows differ; if any, remove {warehouse.path}: it is rebuilt",
            metadata={"differing_rows": rows},
        )

    return check


AUDITS = [equals_recount(table) for table in GROWN]


def defs(settings: Settings) -> dg.Definitions:
    """The audits, their job and its schedule."""
    job = dg.define_asset_job(
        "audit",
        selection=dg.AssetSelection.checks(*AUDITS),
        description="Counts the grown tables from the beginning and compares.",
    )
    weekly = dg.ScheduleDefinition(
        name="weekly_audit",
        job=job,
        cron_schedule="20 4 * * 0",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    return dg.Definitions(asset_checks=AUDITS, jobs=[job], schedules=[weekly])
