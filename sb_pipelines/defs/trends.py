"""`skill_trends`: which skills get better or worse, over four windows and three metrics.

Here: days out of the hours of the series, and the table. The model is `sb_serving.stats.trend`, its
meaning `docs/statistics/trends.md`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from itertools import product

import dagster as dg
import duckdb
import numpy as np
from threadpoolctl import threadpool_limits

from sb_pipelines import plots, tables
from sb_pipelines.defs.automation import SLOW_GROUP
from sb_pipelines.defs.checks import no_broken_rows
from sb_pipelines.resources import (
    OWNERS,
    POOL,
    RETRIES,
    Warehouse,
    set_watermark,
    user_failures,
    watermark,
)
from sb_serving import sql, times
from sb_serving.settings import Settings
from sb_serving.stats import trend

FIELDS = tuple(field.name for field in fields(trend.Trend))
"""Columns that come from the fit; asdict would copy each value deeply."""

PLOTTED = 20
"""Skills in the plot, those with the strongest evidence first."""


@dataclass(frozen=True, slots=True)
class Days:
    """What the trends are computed from.

    Attributes:
        daily: Aggregates of the longest window and the history before it.
        kinds: Skill -> kind.
        end_share: Share of a usual day's invocations that the last day has had time for.
        watermark_id: Every invocation up to this id is in.
    """

    daily: trend.Daily
    kinds: dict[str, str]
    end_share: float
    watermark_id: int


def read_days(connection: duckdb.DuckDBPyConnection, until: datetime) -> Days:
    """Sum the series' hours to days.

    Args:
        connection: The warehouse, for reading.
        until: The last moment, naive UTC; its day is the last one and may not be over.
    """
    midnight = until.replace(hour=0, minute=0, second=0, microsecond=0)
    start = midnight - timedelta(days=max(trend.WINDOWS) + trend.HISTORY - 1)
    found = connection.execute(
        sql.load("warehouse/skill_daily.sql"), {"start": start, "until": until}
    ).fetchnumpy()
    rows = {name: np.ma.getdata(column) for name, column in found.items()}
    day = rows.pop("day").astype("datetime64[D]").astype(np.int64)
    daily = trend.Daily.from_rows(rows.pop("skill_name").tolist(), day, **rows)
    hour = until.replace(minute=0, second=0, microsecond=0)
    ((whole, before),) = connection.execute(
        sql.load("warehouse/time_of_day.sql"),
        {"until": until, "hour_passed": (until - hour) / timedelta(hours=1)},
    ).fetchall()
    known, _ = watermark(connection, "series")
    return Days(
        daily=daily,
        kinds=dict(connection.execute(sql.load("warehouse/skill_kinds.sql")).fetchall()),
        end_share=trend.share_of_day(
            float(before), float(whole), elapsed=(until - midnight) / timedelta(days=1)
        ),
        watermark_id=known,
    )


def find_trends(days: Days, until: datetime) -> list[trend.Trend]:
    """Every skill, window and metric; one scan per window and metric shares its q-values.

    Args:
        days: From `read_days`.
        until: The same moment.
    """
    end = int(np.datetime64(until, "D").astype(np.int64))

    def scan(asked: tuple[trend.Metric, int]) -> list[trend.Trend]:
        metric, window = asked
        return trend.scan(days.daily, end=end, days=window, metric=metric, end_share=days.end_share)

    # Arithmetic on arrays, for which Python's lock is let go; the arrays are small, so that more
    # threads of the linear algebra would only wait.
    with threadpool_limits(limits=1), ThreadPoolExecutor(max_workers=2) as pool:
        found = pool.map(scan, product(trend.METRICS, trend.WINDOWS))
        return [one for trends in found for one in trends]


def update(warehouse: Warehouse, now: datetime) -> list[trend.Trend]:
    """Compute the table anew.

    Args:
        warehouse: Closed while the fits run, so that others may write it.
        now: The end of the windows, naive UTC.
    """
    with warehouse.reading() as connection:
        days = read_days(connection, now)
    found = find_trends(days, now)
    with warehouse.writing() as connection:
        tables.replace(
            connection,
            "skill_trends",
            [
                {name: getattr(one, name) for name in FIELDS}
                | {"kind": days.kinds[one.skill_name], "window_end": now}
                for one in found
            ],
        )
        set_watermark(connection, "skill_trends", days.watermark_id, now)
    return found


def plot(found: list[trend.Trend], metric: trend.Metric, days: int) -> str:
    """The fitted change per day of the skills with the strongest evidence, with its interval."""
    shown = [one for one in found if one.metric == metric and one.days == days]
    shown = [one for one in shown if one.p_value is not None]
    shown.sort(key=lambda one: (one.p_value or 0.0, one.skill_name))
    rows = [
        (
            one.skill_name,
            one.slope_low or 0.0,
            one.slope_per_day or 0.0,
            one.slope_high or 0.0,
            f"{one.trend}, q {one.q_value:.3g}, n {one.n:,}",
        )
        for one in shown[:PLOTTED]
    ]
    edge = max((max(abs(low), abs(high)) for _, low, _, high, _ in rows), default=0.0)
    return plots.ranges(rows, -edge, edge)


@dg.asset(
    deps=[
        dg.AssetDep("skill_time_series", partition_mapping=dg.AllPartitionMapping()),
        "skill_totals",
    ],
    group_name=SLOW_GROUP,
    owners=OWNERS,
    kinds={"python", "duckdb"},
    pool=POOL,
    retry_policy=RETRIES,
)
def skill_trends(warehouse: Warehouse) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """One row per skill, window (7, 14, 30, 90 days) and metric: fitted line, verdict, q over all.

    The windows end now, so a skill that fell silent declines in volume.
    """
    with user_failures():
        found = update(warehouse, times.now().replace(tzinfo=None))
    called = [one for one in found if one.trend in ("improving", "declining")]
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": len(found),
            "improving_or_declining": len(called),
            "not_enough_data": sum(one.p_value is None for one in found),
            "completion_rate_30_days_change_per_day": dg.MetadataValue.md(
                plot(found, "completion_rate", 30)
            ),
        }
    )


trends_are_possible = no_broken_rows(
    "skill_trends",
    "trends_are_possible",
    "p, q and rates lie in [0, 1], values in their intervals, no active skill is missing",
    rows_per_skill=len(trend.WINDOWS) * len(trend.METRICS),
)


def defs(settings: Settings) -> dg.Definitions:
    """The asset and its check."""
    return dg.Definitions(assets=[skill_trends], asset_checks=[trends_are_possible])
