"""Is a skill getting better or worse? One row of the snapshot's `skill_trends`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

from sb_serving.answers.arguments import checked_name, checked_one_of
from sb_serving.answers.published import published, unknown_skill
from sb_serving.models import SkillTrend

if TYPE_CHECKING:
    from sb_serving.live import Live

Days = Literal[7, 14, 30, 90]
Metric = Literal["completion_rate", "avg_duration_seconds", "invocation_count"]

COMMAND = "sb refresh --models"
_UNITS = {
    "completion_rate": "fraction",
    "avg_duration_seconds": "seconds",
    "invocation_count": "invocations a day",
}


def skill_trend(
    live: Live, skill_name: str, days: Days = 7, metric: Metric = "completion_rate"
) -> SkillTrend:
    """The line fitted through a skill's last days, and whether it is more than chance.

    Args:
        live: The live side.
        skill_name: As the assistant writes it.
        days: Length of the window, 7, 14, 30 or 90.
        metric: What to look at.

    Raises:
        SbError: A value is not allowed, the skill is unknown, or nothing was computed yet.
    """
    checked_name("skill_name", skill_name)
    checked_one_of("days", days, get_args(Days))
    checked_one_of("metric", metric, get_args(Metric))
    with published(live, "skill_trends", command=COMMAND) as table:
        rows = table.rows("skill_trend", {"skill_name": skill_name, "days": days, "metric": metric})
        if not rows:
            raise unknown_skill(
                table.snapshot, skill_name, "was not invoked in the last 90 days: no trend"
            )
        row = rows[0]
        return SkillTrend(
            timestamp=row["window_end"],
            message=_message(skill_name, days, metric, row),
            skill_name=skill_name,
            days=days,
            metric=metric,
            unit=_UNITS[metric],
            slope=row.pop("slope_per_day"),
            **row,
            computed_at=table.computed_at,
            source=table.source(
                ("skill_trends",), "sql/answers/skill_trend.sql", "stats.trend.scan"
            ),
        )


def _message(skill_name: str, days: int, metric: str, row: dict[str, Any]) -> str:
    if row["trend"] == "insufficient_data":
        return f"Not enough data for {skill_name} over {days} days: {row['reason']}."
    verdict = {
        "improving": "is improving",
        "declining": "is getting worse",
        "stable": "shows no trend that chance does not explain",
    }[row["trend"]]
    return (
        f"{skill_name} {verdict}: {metric} from {row['start_value']:.3g} to {row['end_value']:.3g}"
        f" over {days} days, {row['slope_per_day']:+.3g} a day (95 % interval"
        f" {row['slope_low']:+.3g} to {row['slope_high']:+.3g}), p {row['p_value']:.2g},"
        f" q {row['q_value']:.2g} over {row['skills']} skills, n {row['n']:,}."
    )
