"""`skill_community_baselines`: how good a skill usually is, among all users of this installation.

Here: counts out of the totals and the sets, and the table. The model is
`sb_serving.stats.baseline`, its meaning `docs/statistics/baselines.md`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import dagster as dg
import duckdb

from sb_pipelines import plots, tables
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
from sb_serving.stats import baseline
from sb_serving.stats.intervals import wilson

MIN_USERS = 5
"""Least users of a skill that is shown once there is more than one user: among fewer, one can tell
who it was."""

PLOTTED = 20


@dataclass(frozen=True, slots=True)
class Updated:
    """What one computation found.

    Attributes:
        rows: The table's rows, highest rate first.
        hidden: Skills with decided invocations that too few users share.
    """

    rows: list[dict[str, Any]]
    hidden: int


def update(connection: duckdb.DuckDBPyConnection, now: datetime) -> Updated:
    """Compute the table anew, in the caller's transaction.

    Args:
        connection: The warehouse, for writing.
        now: When, naive UTC.
    """
    found = connection.execute(sql.load("warehouse/skill_baseline_counts.sql"))
    names = [column[0] for column in found.description or ()]
    counts = {row[0]: dict(zip(names, row, strict=True)) for row in found.fetchall()}
    kinds = dict(connection.execute(sql.load("warehouse/skill_kinds.sql")).fetchall())
    several = any(row["all_users"] > 1 for row in counts.values())
    min_users = MIN_USERS if several else 1
    shown = baseline.baselines(
        list(counts),
        [row["completed"] for row in counts.values()],
        [row["completed"] + row["failed"] for row in counts.values()],
        [row["users"] for row in counts.values()],
        min_users=min_users,
    )
    rows = [
        _row(one, counts[one.skill_name])
        | {
            "kind": kinds[one.skill_name],
            "min_users": min_users,
            "skills": len(shown),
            "last_updated": now,
        }
        for one in sorted(shown, key=lambda one: (-one.shrunk_rate, one.skill_name))
    ]
    tables.replace(connection, "skill_community_baselines", rows)
    known, _ = watermark(connection, "totals")
    set_watermark(connection, "skill_community_baselines", known, now)
    decided = sum(row["completed"] + row["failed"] > 0 for row in counts.values())
    return Updated(rows, decided - len(rows))


def _row(one: baseline.Baseline, counts: dict[str, Any]) -> dict[str, Any]:
    timed, phased = counts["duration_n"], counts["phased"]
    mean = counts["duration_sum"] / timed if timed else None
    reach = _reach(counts["duration_variance"], counts["duration_days"])
    phase_low, phase_high = wilson(counts["phase_n"], phased) if phased else (None, None)
    return {
        "skill_name": one.skill_name,
        "total_users": one.users,
        "total_invocations": counts["invocations"],
        "completion_rate_n": one.n,
        "raw_completion_rate": one.raw_rate,
        "global_completion_rate": one.shrunk_rate,
        "completion_rate_low": one.low,
        "completion_rate_high": one.high,
        "duration_n": timed,
        "duration_days": counts["duration_days"],
        "global_avg_duration_seconds": mean,
        "duration_low": None if reach is None or mean is None else max(mean - reach, 0.0),
        "duration_high": None if reach is None or mean is None else mean + reach,
        "most_common_workflow_phase": counts["phase"],
        "phased": phased,
        "phase_n": counts["phase_n"],
        "phase_low": phase_low,
        "phase_high": phase_high,
        "effectiveness_percentile": one.percentile,
    }


def _reach(variance: float | None, days: int) -> float | None:
    """Half the 95 % interval of a mean over days; None where one day cannot tell."""
    from scipy.special import stdtrit

    return None if variance is None else float(stdtrit(days - 1, 0.975)) * math.sqrt(variance)


def plot(rows: list[dict[str, Any]]) -> str:
    """The best and the worst skills with their intervals."""
    shown = rows if len(rows) <= PLOTTED else rows[: PLOTTED // 2] + rows[-PLOTTED // 2 :]
    return plots.ranges(
        [
            (
                row["skill_name"],
                row["completion_rate_low"],
                row["global_completion_rate"],
                row["completion_rate_high"],
                f"{row['global_completion_rate']:.3f}, n {row['completion_rate_n']:,}, "
                f"{row['total_users']:,} users",
            )
            for row in shown
        ],
        0.0,
        1.0,
    )


@dg.asset(
    deps=[
        dg.AssetDep("skill_time_series", partition_mapping=dg.AllPartitionMapping()),
        "skill_totals",
        "user_skill",
    ],
    group_name="results",
    owners=OWNERS,
    kinds={"python", "duckdb"},
    pool=POOL,
    retry_policy=RETRIES,
)
def skill_community_baselines(warehouse: Warehouse) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """One row per skill that enough users share: shrunk rate, duration, phase, percentile.

    With more than one user a skill of fewer than five is left out before anything is computed.
    """
    with user_failures(), warehouse.writing() as connection:
        found = update(connection, times.now().replace(tzinfo=None))
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": len(found.rows),
            "hidden_skills": found.hidden,
            "completion_rates": dg.MetadataValue.md(plot(found.rows)),
        }
    )


baselines_are_possible = no_broken_rows(
    "skill_community_baselines",
    "baselines_are_possible",
    "rates lie in their intervals and in [0, 1], no skill of too few users is shown",
    k=MIN_USERS,
)


def defs(settings: Settings) -> dg.Definitions:
    """The asset and its check."""
    return dg.Definitions(assets=[skill_community_baselines], asset_checks=[baselines_are_possible])
