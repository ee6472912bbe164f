"""The predecessor's Python API for time series: `TimeSeriesAnalyzer` and `get_analyzer`.

A thin cover: rows come from one query on `skills.db`, numbers from `stats.trend` and
`stats.anomaly`, as everywhere. It needs no snapshot and no Dagster. What is different from the
predecessor is said in the docstrings: rates are fractions, a p-value is called so, days weigh by
their n, and what cannot be told is None.

`get_predictor` and `get_collaborative_engine`, which answer from a snapshot, have modules of their
own and are here by name, where the predecessor had them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from sb_serving import sql, times
from sb_serving.answers.arguments import checked_hours, checked_name, checked_number
from sb_serving.collaborative import (
    CollaborativeFilteringEngine,
    CollaborativeFilteringError,
    get_collaborative_engine,
)
from sb_serving.predictor import SessionContext, SkillSuccessPredictor, get_predictor
from sb_serving.settings import Settings
from sb_serving.store.connection import connect_readonly
from sb_serving.store.pruning import pruned_through

if TYPE_CHECKING:
    from sb_serving.stats.trend import Daily, Trend

__all__ = [
    "CollaborativeFilteringEngine",
    "CollaborativeFilteringError",
    "HourlyMetrics",
    "SessionContext",
    "SkillSuccessPredictor",
    "TimeSeriesAnalyzer",
    "TrendAnalysis",
    "get_analyzer",
    "get_collaborative_engine",
    "get_predictor",
]

Metric = Literal["completion_rate", "avg_duration_seconds", "invocation_count"]
METRICS: tuple[Metric, ...] = get_args(Metric)

ANOMALY_HISTORY = timedelta(days=28)
"""What an hour is compared with: four weeks before the window."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class HourlyMetrics:
    """One skill in one hour.

    Attributes:
        timestamp: Start of the hour, canonical text.
        skill_name: The skill.
        invocation_count: Invocations of every outcome.
        completion_rate: completed / (completed + failed), a fraction; None where both are 0.
        completion_rate_n: completed + failed.
        avg_duration_seconds: Over known durations; None where there is none.
        duration_n: Invocations whose duration is known.
        unique_sessions: Distinct sessions.
    """

    timestamp: str
    skill_name: str
    invocation_count: int
    completion_rate: float | None
    completion_rate_n: int
    avg_duration_seconds: float | None
    duration_n: int
    unique_sessions: int


@dataclass(frozen=True, slots=True)
class TrendAnalysis:
    """A fitted line and what it says.

    Attributes:
        trend: `improving`, `declining`, `stable`, `insufficient_data` or `invalid_metric`.
        slope: Change per day in the metric's unit; None without enough data, like those after it.
        slope_low: Lower bound of its 95 % interval.
        slope_high: Upper bound.
        start_value: Of the line on the first day with data.
        end_value: Of the line on the last one.
        change_percent: 100 * (end_value - start_value) / start_value.
        p_value: Two-sided, of no slope: small is sure. The predecessor called it confidence.
        q_value: `p_value` corrected for all skills of the window.
        n: Decided invocations, known durations, or invocations in the window.
        reason: Why there is no verdict; None where there is one.
    """

    trend: str
    slope: float | None = None
    slope_low: float | None = None
    slope_high: float | None = None
    start_value: float | None = None
    end_value: float | None = None
    change_percent: float | None = None
    p_value: float | None = None
    q_value: float | None = None
    n: int = 0
    reason: str | None = None


class TimeSeriesAnalyzer:
    """Hours, trends and anomalies of one `skills.db`.

    Args:
        db_path: The event store; it is only read.
        now: The clock; windows end at what it says.
    """

    def __init__(self, db_path: Path | str, *, now: Callable[[], datetime] = times.now) -> None:
        self.db_path = Path(db_path).expanduser()
        self._now = now

    def aggregate_hourly_metrics(
        self, skill_name: str | None = None, hours: float = 24
    ) -> list[HourlyMetrics]:
        """Every hour of the last `hours` hours in which something was invoked, oldest first.

        Args:
            skill_name: One skill; None for all.
            hours: Above 0, at most ten years.

        Raises:
            SbError: A value is out of range, or the database cannot be read.
        """
        if skill_name is not None:
            checked_name("skill_name", skill_name)
        span = timedelta(hours=checked_hours("hours", hours))
        return [
            HourlyMetrics(
                timestamp=f"{row['hour']}:00:00.000000+00:00",
                skill_name=row["skill_name"],
                invocation_count=row["n"],
                completion_rate=_share(row["completed"], row["completed"] + row["failed"]),
                completion_rate_n=row["completed"] + row["failed"],
                avg_duration_seconds=_share(row["seconds"], row["duration_n"]),
                duration_n=row["duration_n"],
                unique_sessions=row["sessions"],
            )
            for row in self._hours(self._now() - span, skill_name)
        ]

    def detect_trend(
        self, skill_name: str, metric: str = "completion_rate", window_days: int = 7
    ) -> TrendAnalysis:
        """Whether a skill gets better or worse.

        Args:
            skill_name: The skill.
            metric: One of `METRICS`; another gives `invalid_metric`, as in the predecessor.
            window_days: 4 to 3,660.

        Raises:
            SbError: A value is out of range, or the database cannot be read.
        """
        checked_name("skill_name", skill_name)
        if metric not in METRICS:
            return _invalid(metric)
        nothing = TrendAnalysis(
            "insufficient_data", reason=f"{skill_name} was not invoked in that time"
        )
        found = self._trends(metric, window_days)
        return next((_analysis(one) for one in found if one.skill_name == skill_name), nothing)

    def get_multi_skill_trends(
        self, metric: str = "completion_rate", window_days: int = 7, min_invocations: int = 10
    ) -> dict[str, TrendAnalysis]:
        """The trends of all skills of a window, by name.

        Args:
            metric: One of `METRICS`; another gives no skills.
            window_days: 4 to 3,660.
            min_invocations: Skills with a smaller n are left out.

        Raises:
            SbError: A value is out of range, or the database cannot be read.
        """
        checked_number("min_invocations", min_invocations, 0, 2**31)
        if metric not in METRICS:
            return {}
        return {
            one.skill_name: _analysis(one)
            for one in self._trends(metric, window_days)
            if one.n >= min_invocations
        }

    def get_anomaly_detection(
        self,
        skill_name: str,
        metric: str = "completion_rate",
        window_hours: float = 24,
        z_threshold: float = 2.0,
    ) -> list[dict[str, Any]]:
        """Windows of the last hours in which a skill left what four weeks before lead to expect.

        The hour that is not over is not judged. The false discovery rate over the hours is held at
        .05 before `z_threshold` looks at the rest.

        Args:
            skill_name: The skill.
            metric: One of `METRICS`; another finds nothing.
            window_hours: Above 0, at most ten years.
            z_threshold: Least absolute z_score, 0 to 100.

        Returns:
            `timestamp` and `window_end`, `skill_name`, `metric`, `value`, `expected`, `n`,
            `z_score`, `deviation_type` (`high` or `low`), `p_value`, `q_value`; surest first.

        Raises:
            SbError: A value is out of range, or the database cannot be read.
        """
        import numpy as np

        from sb_serving.stats import anomaly

        checked_name("skill_name", skill_name)
        span = timedelta(hours=checked_hours("window_hours", window_hours))
        checked_number("z_threshold", z_threshold, 0.0, 100.0)
        kinds: dict[str, anomaly.Metric] = {
            "completion_rate": "completion",
            "avg_duration_seconds": "duration",
            "invocation_count": "volume",
        }
        if metric not in kinds:
            return []
        end = int((self._now() - _EPOCH) / timedelta(hours=1))
        rows = self._hours(self._now() - span - ANOMALY_HISTORY, skill_name)
        if not rows:
            return []
        counts = anomaly.HourlyCounts(
            skill=np.zeros(len(rows), dtype=np.int64),
            hour=np.array([_hour_number(row["hour"]) for row in rows]),
            decided=np.array([row["completed"] + row["failed"] for row in rows]),
            completed=np.array([row["completed"] for row in rows]),
            volume=np.array([row["n"] for row in rows]),
            duration_n=np.array([row["duration_n"] for row in rows]),
            duration_sum=np.array([row["seconds"] for row in rows], dtype=np.float64),
        )
        first = end - math.ceil(span / timedelta(hours=1))
        report = anomaly.find_anomalies(
            [skill_name], counts, score_from=first, end=end, metrics=[kinds[metric]]
        )
        return [
            {
                "timestamp": times.to_utc_text(one.window_start),
                "window_end": times.to_utc_text(one.window_end),
                "skill_name": skill_name,
                "metric": metric,
                "value": one.observed_value,
                "expected": one.baseline_value,
                "n": one.n,
                "z_score": one.deviation_score,
                "deviation_type": "high" if one.deviation_score > 0 else "low",
                "p_value": one.p_value,
                "q_value": one.q_value,
            }
            for one in report.anomalies
            if abs(one.deviation_score) >= z_threshold
        ]

    def get_time_series_plot_data(
        self, skill_name: str, metric: str = "completion_rate", hours: float = 168
    ) -> dict[str, Any]:
        """One value per hour, to be drawn.

        Args:
            skill_name: The skill.
            metric: One of `METRICS`; another has no values.
            hours: Above 0, at most ten years.

        Returns:
            `timestamps` and `values` of one length, oldest first, hours without a value left out;
            `skill_name`, `metric`.

        Raises:
            SbError: A value is out of range, or the database cannot be read.
        """
        checked_name("skill_name", skill_name)
        points = [
            (row.timestamp, getattr(row, metric))
            for row in self.aggregate_hourly_metrics(skill_name, hours)
            if metric in METRICS and getattr(row, metric) is not None
        ]
        return {
            "timestamps": [timestamp for timestamp, _ in points],
            "values": [value for _, value in points],
            "skill_name": skill_name,
            "metric": metric,
        }

    def _trends(self, metric: Metric, window_days: int) -> list[Trend]:
        from sb_serving.stats import trend

        checked_number("window_days", window_days, trend.MIN_DAYS, trend.MAX_DAYS)
        now = self._now().astimezone(UTC)
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        # A moment earlier, since the query's windows do not hold their start.
        start = midnight - timedelta(days=window_days + trend.HISTORY - 1, microseconds=1)
        rows = self._hours(start, None)
        today = now.strftime("%Y-%m-%d")
        past = [row for row in rows if row["hour"][:10] != today]
        month = (midnight - timedelta(days=28)).strftime("%Y-%m-%dT%H")
        usual = [row for row in past if row["hour"] >= month]
        share = trend.share_of_day(
            float(sum(row["n"] * _passed(row["hour"], now) for row in usual)),
            float(sum(row["n"] for row in usual)),
            elapsed=(now - midnight) / timedelta(days=1),
        )
        return trend.scan(
            _daily(rows),
            end=(midnight - _EPOCH).days,
            days=window_days,
            metric=metric,
            end_share=share,
        )

    def _hours(self, start: datetime, skill_name: str | None) -> list[dict[str, Any]]:
        parameters = {
            "start": times.to_utc_text(start),
            "end": times.to_utc_text(self._now()),
            "skill": skill_name,
        }
        with closing(connect_readonly(self.db_path)) as connection:
            # SQLite has no ln() unless it was built with it.
            connection.create_function("natural_log", 1, _log, deterministic=True)
            connection.execute("begin")  # pruning moves rows from one table to the other
            found = connection.execute(sql.load("series/hours.sql"), parameters)
            names = [column[0] for column in found.description]
            rows = found.fetchall()
            if pruned_through(connection) is not None:
                rows = _with_pruned(
                    rows,
                    connection.execute(sql.load("series/pruned_hours.sql"), parameters).fetchall(),
                )
            return [dict(zip(names, row, strict=True)) for row in rows]


def get_analyzer(db_path: Path | str | None = None) -> TimeSeriesAnalyzer:
    """An analyzer of a database, or of the one of the settings."""
    return TimeSeriesAnalyzer(Settings.load().skills_db if db_path is None else db_path)


def _with_pruned(
    rows: list[tuple[Any, ...]], pruned: list[tuple[Any, ...]]
) -> list[tuple[Any, ...]]:
    """Hours of the log and of pruned days, summed where late rows make one both."""
    found = {(hour, skill): sums for skill, hour, *sums in pruned}
    for skill, hour, *sums in rows:
        before = found.get((hour, skill), [0] * len(sums))
        found[hour, skill] = [old + new for old, new in zip(before, sums, strict=True)]
    return [(skill, hour, *sums) for (hour, skill), sums in sorted(found.items())]


def _log(seconds: float | None) -> float | None:
    return None if seconds is None else math.log(max(seconds, 0.001))


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _hour_number(hour: str) -> int:
    moment = datetime.strptime(hour, "%Y-%m-%dT%H").replace(tzinfo=UTC)
    return int((moment - _EPOCH) / timedelta(hours=1))


def _passed(hour: str, now: datetime) -> float:
    """The share of an hour of day that lies before the time of day of `now`."""
    return min(max(now.hour + now.minute / 60 - int(hour[11:13]), 0.0), 1.0)


def _daily(rows: list[dict[str, Any]]) -> Daily:
    """Hours summed to days."""
    from sb_serving.stats import trend

    days: dict[tuple[str, int], list[float]] = {}
    fields = ("n", "completed", "failed", "duration_n", "seconds", "log_seconds", "log_squares")
    for row in rows:
        key = (row["skill_name"], _hour_number(row["hour"]) // 24)
        sums = days.setdefault(key, [0.0] * len(fields))
        for place, name in enumerate(fields):
            sums[place] += row[name]
    columns = list(zip(*days.values(), strict=True)) or [()] * len(fields)
    n, completed, failed, timed, seconds, logs, squares = columns
    return trend.Daily.from_rows(
        [skill for skill, _ in days],
        [day for _, day in days],
        invocations=n,
        completed=completed,
        decided=[k + f for k, f in zip(completed, failed, strict=True)],
        timed=timed,
        seconds=seconds,
        log_seconds=logs,
        log_squares=squares,
    )


def _analysis(found: Trend) -> TrendAnalysis:
    return TrendAnalysis(
        trend=found.trend,
        slope=found.slope_per_day,
        slope_low=found.slope_low,
        slope_high=found.slope_high,
        start_value=found.start_value,
        end_value=found.end_value,
        change_percent=found.change_percent,
        p_value=found.p_value,
        q_value=found.q_value,
        n=found.n,
        reason=found.reason,
    )


def _invalid(metric: str) -> TrendAnalysis:
    reason = f"metric = {metric!r} is none of {', '.join(METRICS)}"
    return TrendAnalysis("invalid_metric", reason=reason)
