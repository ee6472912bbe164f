"""The weekly audit: does what grew row by row equal what is counted from the beginning?

The recount runs the very functions of the assets on temporary tables of the same names, which
DuckDB finds before the real ones. It reads every event, so it is not part of a refresh.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import dagster as dg
import duckdb

from sb_pipelines.defs import predictor_totals, sets, time_series
from sb_pipelines.resources import POOL, Warehouse, one_row, set_watermark, user_failures, watermark
from sb_serving import sql
from sb_serving.settings import Settings

_NO_WINDOW = datetime.min  # every hour lies past the recount's empty watermark  # noqa: DTZ901


@dataclass(frozen=True, slots=True)
class Grown:
    """Tables that grow together.

    Attributes:
        compared: The tables.
        helpers: Other tables that their function writes.
        count: The function of the assets that computes them.
        until: The watermark up to which they have come.
        asset: The asset that has the check; default the first table's own.
    """

    compared: tuple[str, ...]
    helpers: tuple[str, ...]
    count: Callable[[duckdb.DuckDBPyConnection], object]
    until: str = "events"
    asset: str = ""


def _sets_and_order(connection: duckdb.DuckDBPyConnection) -> None:
    """The order of first uses stands on the numbers of the sets."""
    sets.fold_sets(connection)
    sets.fold_order(connection)


GROWN = (
    Grown(
        ("skill_time_series",),
        ("changed_hours",),
        lambda connection: time_series.rebuild_hours(connection, _NO_WINDOW, _NO_WINDOW),
    ),
    Grown(("skill_totals",), (), time_series.fold_totals),
    Grown(("predictor_totals",), (), predictor_totals.fold_totals),
    Grown(
        ("pair_count", "session_skill", "skill_session_size", "user_skill"),
        sets.KEYS,
        sets.fold_sets,
    ),
    Grown(
        ("pair_order", "session_first_use"),
        (*sets.KEYS, *sets.SETS),
        _sets_and_order,
        until="order",
        asset="skill_dependencies",
    ),
)


def differing(connection: duckdb.DuckDBPyConnection, grown: Grown) -> dict[str, int]:
    """Count grown tables anew from all events.

    Args:
        connection: The warehouse; one for reading will do.
        grown: Which.

    Returns:
        By table, how many rows differ from the recount, or stand on one side only.
    """
    known, at = watermark(connection, grown.until)
    shadows = ("watermarks", *grown.helpers, *grown.compared)
    for table in shadows:
        connection.execute(f"create temp table {table} as from {table} limit 0")
    # set_watermark needs a key to find the row by; a table made from another has none.
    connection.execute("create unique index watermark_name on temp.watermarks (name)")
    set_watermark(connection, "events", known, at)
    grown.count(connection)
    connection.execute("drop index temp.watermark_name")
    for table in shadows:
        connection.execute(f"alter table temp.{table} rename to recounted_{table}")
    found = {
        table: int(one_row(connection, sql.load(f"warehouse/{table}_differing.sql"))[0])
        for table in grown.compared
    }
    for table in shadows:
        connection.execute(f"drop table temp.recounted_{table}")
    return found


def all_differing(connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """`differing` of every grown table."""
    return {table: rows for grown in GROWN for table, rows in differing(connection, grown).items()}


def equals_recount(grown: Grown) -> dg.AssetChecksDefinition:
    """The audit of tables that grow together."""

    @dg.asset_check(
        asset=grown.asset or grown.compared[0],
        name="equals_recount",
        additional_deps=() if grown.asset else grown.compared[1:],
        pool=POOL,
        description=f"Every row of {', '.join(grown.compared)} equals what is counted anew from"
        " all events.",
    )
    def check(warehouse: Warehouse) -> dg.AssetCheckResult:
        with user_failures(), warehouse.reading() as connection:
            found = differing(connection, grown)
        rows = sum(found.values())
        return dg.AssetCheckResult(
            passed=not rows,
            description=f"{rows} rows differ; if any, run `sb refresh --full`",
            metadata={"differing_rows": rows, **found},
        )

    return check


AUDITS = [equals_recount(grown) for grown in GROWN]


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
