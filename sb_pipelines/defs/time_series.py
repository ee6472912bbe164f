"""`skill_time_series` and `skill_totals`: what happened, per hour and over all time.

Here: which days are rebuilt and which rows are folded. What a row is stands in
`sql/warehouse/skill_time_series.sql` and `skill_totals.sql`.
"""

import logging
import warnings
from dataclasses import dataclass
from datetime import date, datetime, timedelta

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
from sb_serving import sql, times
from sb_serving.errors import SbError
from sb_serving.settings import Settings

CHUNK_ROWS = 4_000_000
"""Events rebuilt at once: exact quantiles hold a chunk's durations in memory."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What one rebuild of the series did.

    Attributes:
        rows: Series rows of each day with a rebuilt hour, by its start (naive UTC).
        total: Series rows in all.
        watermark_id: Every event up to this id is in.
    """

    rows: dict[datetime, int]
    total: int
    watermark_id: int


def rebuild_hours(connection: duckdb.DuckDBPyConnection, start: datetime, end: datetime) -> Rebuilt:
    """Rebuild the hours of a window, and every hour that an event past the watermark touched.

    A skill's hour is deleted and computed again from its events, so doing it twice changes nothing,
    and an event that comes late mends its hour whoever runs next. A pruned hour is put back as it
    stood. In the caller's transaction.

    Args:
        connection: The warehouse, for writing.
        start: First moment of the window, naive UTC.
        end: First moment after it.
    """
    after, _ = watermark(connection, "series")
    known, at = watermark(connection, "events")
    connection.execute(
        "create or replace temp table touched_hours as " + sql.load("warehouse/touched_hours.sql"),
        {"after": after, "window_start": start, "window_end": end, "chunk_rows": CHUNK_ROWS},
    )
    connection.execute(
        "delete from skill_time_series"
        " where (skill_name, hour) in (select skill_name, hour from touched_hours)"
    )
    chunks = connection.execute(
        "select chunk, min(hour), max(hour) from touched_hours group by chunk order by 1"
    ).fetchall()
    for chunk, first, last in chunks:
        connection.execute(
            "insert into skill_time_series " + sql.load("warehouse/skill_time_series.sql"),
            {"chunk": chunk, "first_hour": first, "last_hour": last},
        )
        if len(chunks) > 1:
            _log.info("rebuilt the hours from %s to %s", first, last)
    connection.execute(
        "create or replace temp table pruned as " + sql.load("warehouse/pruned_hours.sql")
    )
    connection.execute(
        "delete from skill_time_series where (skill_name, hour, kind) in"
        " (select skill_name, hour, kind from pruned)"
    )
    connection.execute("insert into skill_time_series select * from pruned")
    connection.execute("drop table pruned")
    connection.execute(
        "insert into changed_hours"
        " select skill_name, hour from touched_hours except from changed_hours"
    )
    set_watermark(connection, "series", known, at)
    rows = connection.execute(
        "select t.day, count(s.hour)"
        " from (select distinct date_trunc('day', hour) as day from touched_hours) t"
        " left join skill_time_series s on date_trunc('day', s.hour) = t.day"
        " group by t.day order by t.day"
    ).fetchall()
    connection.execute("drop table touched_hours")
    (total,) = one_row(connection, "select count(*) from skill_time_series")
    return Rebuilt(rows=dict(rows), total=total, watermark_id=known)


def fold_totals(connection: duckdb.DuckDBPyConnection) -> int:
    """Add the events past the totals' watermark to the totals, in the caller's transaction.

    Returns:
        The number of rows afterwards.
    """
    after, _ = watermark(connection, "totals")
    known, at = watermark(connection, "events")
    connection.execute(
        "create or replace temp table folded as " + sql.load("warehouse/skill_totals.sql"),
        {"after": after},
    )
    connection.execute("delete from skill_totals")
    connection.execute("insert into skill_totals select * from folded")
    connection.execute("drop table folded")
    set_watermark(connection, "totals", known, at)
    (rows,) = one_row(connection, "select count(*) from skill_totals")
    return int(rows)


def daily(settings: Settings) -> dg.DailyPartitionsDefinition:
    """The partitions of `skill_time_series`: UTC days from the set start to today.

    Days, not hours: Dagster charges each partition's event about 40 ms of CPU, whatever the SQL
    costs.

    Raises:
        SbError: The start lies in the future.
    """
    start = date.fromisoformat(settings.partitions_start)
    if start > times.now().date():
        raise SbError(
            f"partitions_start = {settings.partitions_start} lies in the future",
            fix="Set it to a day on which there is data, or leave it out.",
        )
    return dg.DailyPartitionsDefinition(settings.partitions_start, end_offset=1)


def whole_range(partitions: dg.DailyPartitionsDefinition) -> tuple[datetime, datetime]:
    """First moment of the first partition, and the moment after the last, naive UTC."""
    last = datetime.fromisoformat(str(partitions.get_last_partition_key()))
    return partitions.start.replace(tzinfo=None), last + timedelta(days=1)


def skill_time_series(partitions: dg.DailyPartitionsDefinition) -> dg.AssetsDefinition:
    """The asset, over these partitions: they are a setting, so they are not known at import."""

    def skill_time_series(
        context: dg.AssetExecutionContext, warehouse: Warehouse
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]
        """One row per skill, kind and UTC hour: counts by outcome, durations, sessions, users.

        A run rebuilds the days it was asked for and every hour of a skill that new events touched;
        the days of the latter are logged as materialized too. Days before the first partition and
        in the future are computed and served, but have no partition to show.
        """
        window = context.partition_time_window
        with user_failures(), warehouse.writing() as connection:
            rebuilt = rebuild_hours(
                connection, window.start.replace(tzinfo=None), window.end.replace(tzinfo=None)
            )
        own = set(context.partition_keys)
        for day, rows in rebuilt.rows.items():
            key = day.date().isoformat()
            if key not in own and partitions.has_partition_key(key):
                context.log_event(
                    dg.AssetMaterialization(
                        asset_key=context.asset_key,
                        partition=key,
                        metadata={"dagster/partition_row_count": rows},
                    )
                )
        # Copied into each partition's event, so it is kept small.
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": rebuilt.total,
                "days_rebuilt": len(rebuilt.rows),
                "watermark_id": rebuilt.watermark_id,
            }
        )

    with warnings.catch_warnings():
        # backfill_policy is marked beta; without it a backfill is one run per day.
        warnings.simplefilter("ignore", dg.BetaWarning)
        return dg.asset(
            deps=["events"],
            group_name="series",
            owners=OWNERS,
            kinds={"duckdb"},
            pool=POOL,
            partitions_def=partitions,
            backfill_policy=dg.BackfillPolicy.single_run(),
            retry_policy=RETRIES,
        )(skill_time_series)


@dg.asset(
    deps=["events"],
    group_name="series",
    owners=OWNERS,
    kinds={"duckdb"},
    pool=POOL,
    retry_policy=RETRIES,
)
def skill_totals(warehouse: Warehouse) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """One row per skill, kind, phase and outcome: counts, seconds and cumulative duration buckets.

    Only events past the watermark are read; serving adds the rows after the snapshot to these, so
    its counters never fall.
    """
    with user_failures(), warehouse.writing() as connection:
        rows = fold_totals(connection)
        known, _ = watermark(connection, "totals")
    return dg.MaterializeResult(metadata={"dagster/row_count": rows, "watermark_id": known})


def defs(settings: Settings) -> dg.Definitions:
    """Both assets."""
    return dg.Definitions(assets=[skill_time_series(daily(settings)), skill_totals])
