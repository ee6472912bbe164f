"""`TimeSeriesAnalyzer`: the predecessor's calls with right numbers, on cases counted by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sb_pipelines import analyze
from sb_pipelines.analyze import Events
from sb_serving import demo, times
from sb_serving.analytics import METRICS, HourlyMetrics, TimeSeriesAnalyzer, get_analyzer
from sb_serving.errors import SbError
from sb_serving.store import Store
from tests.builders import SESSION_BUDDY_INSERT, invocation

NOW = datetime(2026, 11, 22, 15, 20, tzinfo=UTC)


def analyzer(folder: Path) -> TimeSeriesAnalyzer:
    return TimeSeriesAnalyzer(folder / "skills.db", now=lambda: NOW)


def ago(**time: float) -> str:
    return times.to_utc_text(NOW - timedelta(**time))


@pytest.fixture
def few(tmp_path: Path) -> TimeSeriesAnalyzer:
    """Three calls at two o'clock, one of another tool, one of yesterday, one of tomorrow."""
    with Store.open(tmp_path / "skills.db", create=True) as store:
        store.import_batch(
            [
                invocation(1, invoked_at=ago(minutes=50), duration_seconds=2.0),
                invocation(2, invoked_at=ago(minutes=60), outcome="failed", duration_seconds=4.0),
                invocation(
                    3,
                    invoked_at=ago(minutes=70),
                    outcome="rejected",
                    session_id="other",
                    duration_seconds=None,
                ),
                invocation(4, invoked_at=ago(hours=24, minutes=1)),
                invocation(5, invoked_at=ago(hours=-3)),
            ]
        )
        store.connection.execute(
            SESSION_BUDDY_INSERT, ("lint", "2026-11-22T14:30:00+02:00", "s", 1, None, None, None)
        )
    return analyzer(tmp_path)


def test_hours_are_counted(few: TimeSeriesAnalyzer) -> None:
    """Half past two at +02:00 is half past twelve."""
    assert few.aggregate_hourly_metrics() == [
        HourlyMetrics("2026-11-22T12:00:00.000000+00:00", "lint", 1, 1.0, 1, None, 0, 1),
        HourlyMetrics("2026-11-22T14:00:00.000000+00:00", "commit", 3, 0.5, 2, 3.0, 2, 2),
    ]
    assert [row.skill_name for row in few.aggregate_hourly_metrics("lint")] == ["lint"]
    assert len(few.aggregate_hourly_metrics("commit", hours=25)) == 2


def test_plot_data_leaves_out_hours_without_a_value(few: TimeSeriesAnalyzer) -> None:
    assert few.get_time_series_plot_data("lint", "avg_duration_seconds") == {
        "timestamps": [],
        "values": [],
        "skill_name": "lint",
        "metric": "avg_duration_seconds",
    }
    assert few.get_time_series_plot_data("commit", "invocation_count")["values"] == [1, 3]


@pytest.mark.parametrize("metric", METRICS)
def test_trends_are_those_of_sb_analyze(tmp_path: Path, metric: str) -> None:
    with Store.open(tmp_path / "skills.db", create=True) as store:
        store.bulk_import(demo.invocations(demo.DemoPlan(n=2_500, seed=2, end=NOW, days=60)))
    found = analyzer(tmp_path).get_multi_skill_trends(metric, window_days=30, min_invocations=0)
    arguments = {"end": times.to_utc_text(NOW), "days": [30], "metric": metric}
    store_events = Events.from_store(tmp_path / "skills.db")
    expected = analyze.analyze("trends", store_events, arguments)["trends"]
    compared = 0
    for row in expected:
        # Skills of the earlier month only have no row here, and no verdict there.
        one = found.get(row["skill_name"])
        if one is None or row["p_value"] is None:
            assert row["trend"] == "insufficient_data"
            continue
        compared += 1
        assert (one.trend, one.n) == (row["trend"], row["n"])
        assert one.p_value == pytest.approx(row["p_value"], rel=0.2, abs=1e-6)
        assert one.end_value == pytest.approx(row["end_value"], rel=0.05)
    assert compared > 5
    name = max(found, key=lambda name: found[name].n)
    assert analyzer(tmp_path).detect_trend(name, metric, 30) == found[name]


def test_one_failing_call_today_is_not_a_collapse(tmp_path: Path) -> None:
    """The predecessor's days weigh alike: -100 %."""
    rng = np.random.default_rng(1)
    with Store.open(tmp_path / "skills.db", create=True) as store:
        store.bulk_import(
            [
                invocation(
                    200 * day + call,
                    invoked_at=ago(days=day, minutes=1 + call),
                    outcome="completed" if rng.random() < 0.9 else "failed",
                )
                for day in range(1, 6)
                for call in range(100)
            ]
            + [invocation(9_999, invoked_at=ago(minutes=5), outcome="failed")]
        )
    found = analyzer(tmp_path).detect_trend("commit")
    assert (found.trend, found.n) == ("stable", 501)
    assert abs(found.change_percent or 0.0) < 10
    assert json.dumps(asdict(found), allow_nan=False)


def test_what_cannot_be_told_is_said(few: TimeSeriesAnalyzer) -> None:
    found = few.detect_trend("commit")
    assert (found.trend, found.slope, found.p_value) == ("insufficient_data", None, None)
    assert "are needed" in str(found.reason)
    assert few.detect_trend("nobody").trend == "insufficient_data"
    assert few.detect_trend("commit", "rating").trend == "invalid_metric"
    assert few.get_multi_skill_trends("rating") == {}
    assert few.get_anomaly_detection("commit") == few.get_anomaly_detection("nobody") == []


def test_a_fall_is_found_and_a_quiet_skill_is_not(tmp_path: Path) -> None:
    """Thirty days at .95, ten calls an hour by day; the last six hours fail."""
    rng = np.random.default_rng(4)
    rows = []
    for hour in range(1, 24 * 30):
        at = NOW - timedelta(hours=hour)
        if not 8 <= at.hour < 20:
            continue
        for call in range(10):
            for skill, rate in (("broken", 0.2 if hour <= 6 else 0.95), ("fine", 0.95)):
                rows.append(
                    invocation(
                        len(rows),
                        skill_name=skill,
                        invoked_at=times.to_utc_text(at - timedelta(seconds=call)),
                        outcome="completed" if rng.random() < rate else "failed",
                    )
                )
    with Store.open(tmp_path / "skills.db", create=True) as store:
        store.bulk_import(rows)
    (found, *_) = analyzer(tmp_path).get_anomaly_detection("broken")
    assert (found["deviation_type"], found["metric"]) == ("low", "completion_rate")
    assert found["value"] < 0.4 < 0.9 < found["expected"]
    assert found["z_score"] < -2
    assert found["q_value"] <= 0.05
    assert analyzer(tmp_path).get_anomaly_detection("fine") == []
    assert analyzer(tmp_path).get_anomaly_detection("broken", z_threshold=100.0) == []


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda a: a.aggregate_hourly_metrics(hours=0), "hours = 0"),
        (lambda a: a.aggregate_hourly_metrics(hours="1 hours') --"), "hours = "),
        (lambda a: a.detect_trend("commit", window_days=3), "window_days = 3"),
        (lambda a: a.detect_trend("", window_days=7), "skill_name = ''"),
        (lambda a: a.get_multi_skill_trends(min_invocations=-1), "min_invocations = -1"),
        (lambda a: a.get_anomaly_detection("commit", z_threshold=-1.0), "z_threshold = -1.0"),
    ],
)
def test_values_out_of_range_are_named(few: TimeSeriesAnalyzer, call: Any, words: str) -> None:
    with pytest.raises(SbError, match=words):
        call(few)


def test_a_missing_database_is_not_made(tmp_path: Path) -> None:
    """The predecessor creates an empty file and answers from it."""
    with pytest.raises(SbError, match="there is no database"):
        TimeSeriesAnalyzer(tmp_path / "skills.db").aggregate_hourly_metrics()
    assert not (tmp_path / "skills.db").exists()


def test_the_default_is_the_database_of_the_settings(sb_home: Path) -> None:
    assert get_analyzer().db_path == sb_home / "skills.db"


def test_importing_it_is_light() -> None:
    code = (
        "import sys, sb_serving.analytics;"
        "print([m for m in ('dagster', 'pandas', 'sklearn', 'scipy.stats')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
