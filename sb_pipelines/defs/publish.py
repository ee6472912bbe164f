"""`published_snapshot`: the results, copied into one closed file that serving reads.

Here: which tables go out, and what the run says about them. How a file becomes visible in one step
is in `sb_serving.snapshot`.
"""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb

from sb_pipelines import plots
from sb_pipelines.defs.authored import AUTHORED
from sb_pipelines.defs.time_series import daily, whole_range
from sb_pipelines.resources import (
    OWNERS,
    POOL,
    RETRIES,
    Snapshots,
    Warehouse,
    one_row,
    user_failures,
    watermark,
)
from sb_serving import __version__, snapshot, sql, times
from sb_serving.errors import SbError
from sb_serving.settings import Settings

PUBLISHED = (
    "skill_time_series",
    "skill_totals",
    "skill_trends",
    "skill_community_baselines",
    "skill_dependencies",
    "skill_clusters",
    "skill_cluster_membership",
    "predictor_totals",
    "model_registry",
    "user_similarity",
    "skill_anomalies",
    *AUTHORED,
)
"""Tables of the warehouse that go out, each an asset of the same name. Never `events`: its rows are
most of the warehouse, and serving reads recent ones from the event store itself."""

ALSO = ("watermarks", "arrays", "skill_anomaly_factors", "expected_found")
"""Tables without an asset of their own that go out too."""

PLOT_DAYS = 60


def copy_tables(connection: duckdb.DuckDBPyConnection, warehouse: Path) -> None:
    """Make the published tables in a new snapshot, each in the order of its columns.

    Args:
        connection: The snapshot being built, in its transaction.
        warehouse: The file to copy from; nobody may be writing it.
    """
    quoted = str(warehouse).replace("'", "''")
    connection.execute(f"attach '{quoted}' as warehouse (read_only)")
    for table in (*PUBLISHED, *ALSO):
        connection.execute(f"create table {table} as from warehouse.{table} order by all")


def publish(
    warehouse: Warehouse, snapshots: Snapshots, start: datetime, end: datetime
) -> tuple[Path, dict[str, Any]]:
    """Publish what the warehouse holds now.

    The warehouse stays open for reading meanwhile, so that no other process can change it between
    its watermark and its rows.

    Args:
        warehouse: Its series and totals must have been materialized.
        snapshots: Where to publish.
        start: First moment of the days that have a partition, naive UTC.
        end: First moment after them.

    Returns:
        The snapshot's path, and what to tell about it.

    Raises:
        SbError: The warehouse cannot be read or lacks a table, or the snapshot is not good.
    """
    now = times.now()
    with warehouse.reading() as connection:
        for name, asset in (("series", "skill_time_series"), ("totals", "skill_totals")):
            if watermark(connection, name)[1] is None and watermark(connection, "events")[1]:
                raise SbError(
                    f"{asset} was never computed in {warehouse.path}",
                    fix=f"Materialize {asset} first, or run `sb refresh`.",
                )
        # Counters are these totals plus the rows after them, so theirs is the snapshot's watermark.
        known, at = watermark(connection, "totals")
        _, out_of_range, invalid = one_row(
            connection, sql.load("warehouse/events_accounted.sql"), {"start": start, "end": end}
        )
        until = now.replace(tzinfo=None)
        days = connection.execute(
            sql.load("warehouse/invocations_per_day.sql"),
            {"start": until - timedelta(days=PLOT_DAYS), "end": until},
        ).fetchall()
        rows = {table: len(connection.table(table)) for table in PUBLISHED}
        # Last: closing the attached file also ends this process's lock on it.
        path = snapshot.publish(
            lambda building: copy_tables(building, warehouse.path),
            Path(snapshots.folder),
            watermark_id=known,
            watermark_at=at,
            published_at=now,
            code_version=__version__,
            invalid_rows=invalid,
            out_of_range_rows=out_of_range,
            keep=snapshots.keep,
        )
    return path, {
        "snapshot_number": int(path.stem),
        "watermark_id": known,
        "watermark_at": str(at),
        "invalid_rows": invalid,
        "out_of_range_rows": out_of_range,
        "bytes": path.stat().st_size,
        "rows": dg.MetadataValue.json(rows),
        "invocations_per_day": dg.MetadataValue.md(plot(dict(days), until)),
    }


def plot(counts: dict[datetime, int], until: datetime) -> str:
    """A line of bars, one per day of the last `PLOT_DAYS`, as Markdown.

    Args:
        counts: Invocations by start of day; days without any may be missing.
        until: The last moment shown.
    """
    last = until.replace(hour=0, minute=0, second=0, microsecond=0)
    days = [last - timedelta(days=back) for back in range(PLOT_DAYS - 1, -1, -1)]
    values = [counts.get(day, 0) for day in days]
    most = max(values) or 1
    bars = plots.columns(values)
    return f"```\n{bars}\n{days[0].date()} to {last.date()}, at most {most} a day\n```"


def published_snapshot(partitions: dg.DailyPartitionsDefinition) -> dg.AssetsDefinition:
    """The asset, over the partitions of its source."""

    @dg.asset(
        deps=[
            dg.AssetDep(table, partition_mapping=dg.AllPartitionMapping())
            if table == "skill_time_series"
            else dg.AssetDep(table)
            for table in PUBLISHED
        ],
        group_name="serving",
        owners=OWNERS,
        kinds={"duckdb"},
        pool=POOL,
        retry_policy=RETRIES,
        freshness_policy=dg.FreshnessPolicy.time_window(
            fail_window=timedelta(hours=3), warn_window=timedelta(hours=2)
        ),
    )
    def published_snapshot(warehouse: Warehouse, snapshots: Snapshots) -> dg.MaterializeResult:  # type: ignore[type-arg]
        """The result tables in one closed file; serving changes over to it within a second.

        Its watermark is that of the totals: serving adds the rows after it.
        """
        start, end = whole_range(partitions)
        # Another process may be publishing at this very moment; then it is tried again.
        with user_failures(retry=True):
            path, metadata = publish(warehouse, snapshots, start, end)
        return dg.MaterializeResult(metadata={"path": dg.MetadataValue.path(str(path)), **metadata})

    return published_snapshot


def defs(settings: Settings) -> dg.Definitions:
    """The asset."""
    return dg.Definitions(assets=[published_snapshot(daily(settings))])
