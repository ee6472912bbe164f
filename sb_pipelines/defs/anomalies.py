"""`skill_anomalies`: what left its expectation, since when, and what moved with it.

Here: the asset, its check and what a run says. The search is `sb_pipelines.anomalies`, its meaning
`docs/statistics/anomalies.md`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import dagster as dg
import duckdb

from sb_pipelines import plots
from sb_pipelines.anomalies import search
from sb_pipelines.defs.checks import no_broken_rows
from sb_pipelines.resources import OWNERS, POOL, RETRIES, Warehouse, user_failures
from sb_serving import sql, times
from sb_serving.settings import Settings

PLOT_DAYS = 60
PLOTTED = 20
"""Open rows in the plot, the strongest first."""


def plot(rows: list[tuple[Any, ...]]) -> str:
    """Open rows by size of their deviation.

    Args:
        rows: skill_name, metric, anomaly_type, deviation_score, since, q_value, n.
    """
    shown = [
        (
            name,
            abs(z),
            f"{metric} {kind}, z {z:.1f}, since {since:%Y-%m-%d %H:%M}, q {q:.2g}, n {n:,}",
        )
        for name, metric, kind, z, since, q, n in rows
    ]
    return plots.bars(shown, max((size for _, size, _ in shown), default=0.0))


def history(connection: duckdb.DuckDBPyConnection, now: datetime) -> str:
    """Rows by the day on which they began, the last `PLOT_DAYS`."""
    last = now.replace(hour=0, minute=0, second=0, microsecond=0)
    first = last - timedelta(days=PLOT_DAYS - 1)
    counts = dict(
        connection.execute(
            sql.load("warehouse/skill_anomalies_by_day.sql"), {"start": first}
        ).fetchall()
    )
    values = [counts.get(first + timedelta(days=day), 0) for day in range(PLOT_DAYS)]
    return f"```\n{plots.columns(values)}\n{first.date()} to {last.date()}\n```"


@dg.asset(
    deps=[dg.AssetDep("skill_time_series", partition_mapping=dg.AllPartitionMapping())],
    group_name="results",
    owners=OWNERS,
    kinds={"python", "duckdb"},
    pool=POOL,
    retry_policy=RETRIES,
)
def skill_anomalies(warehouse: Warehouse) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """One row per event in which a skill left what is expected of it; opened, updated, resolved.

    A run judges the last two days, and earlier ones that new events touched. It ends now, so that
    silence is seen.
    """
    now = times.now().replace(tzinfo=None)
    with user_failures(), warehouse.writing() as connection:
        found = search(connection, now)
        strongest = connection.execute(
            sql.load("warehouse/skill_anomalies_strongest.sql"), {"limit": PLOTTED}
        ).fetchall()
        by_day = history(connection, now)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": found.total,
            "open": found.open,
            "opened": found.opened,
            "updated": found.updated,
            "resolved": found.resolved,
            "retracted": found.retracted,
            "searched_from": str(found.searched_from),
            "searched_until": str(found.searched_until),
            "open_rows": dg.MetadataValue.md(plot(strongest)),
            "began_per_day": dg.MetadataValue.md(by_day),
        }
    )


anomalies_are_possible = no_broken_rows(
    "skill_anomalies",
    "anomalies_are_possible",
    "p, q and rates lie in [0, 1], windows and dates are in order, no event is open twice",
)


def defs(settings: Settings) -> dg.Definitions:
    """The asset and its check."""
    return dg.Definitions(assets=[skill_anomalies], asset_checks=[anomalies_are_possible])
