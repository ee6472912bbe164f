"""The thirteen views say what their heads promise, on cases that can be counted by hand.

Names D<n> are numbers that Session-Buddy's own views got wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sb_serving import times
from sb_serving.store import Store
from tests.builders import SESSION_BUDDY_INSERT, invocation, new_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty event store."""
    with new_store(tmp_path) as opened:
        yield opened


def ago(**time: float) -> str:
    """Canonical text of a moment before now."""
    return times.to_utc_text(times.now() - timedelta(**time))


def record(store: Store, number: int, **fields: Any) -> None:
    """Store one record, by the way that takes any time."""
    result = store.import_batch([invocation(number, **fields)])
    assert result.inserted == 1, result.refused


def by_another_tool(store: Store, *row: Any) -> None:
    """Add (skill, start, session, completed, error, duration, path) without companion."""
    store.connection.execute(SESSION_BUDDY_INSERT, row)


def select(store: Store, query: str) -> list[tuple[Any, ...]]:
    """Rows of a query."""
    return store.connection.execute(query).fetchall()


# V1 --------------------------------------------------------------------------------------------


def test_sessions_count_skills_rows_and_outcomes(store: Store) -> None:
    """D25: durations of failed runs count; a run without one does not count as 0 s."""
    record(store, 1, session_id="s", skill_name="a", outcome="failed", duration_seconds=9.0)
    record(store, 2, session_id="s", skill_name="a", outcome="failed", duration_seconds=9.0)
    record(store, 3, session_id="s", skill_name="b", duration_seconds=None)
    by_another_tool(store, "b", "2026-11-20 09:00:00", "s", 0, None, 2.0, None)
    by_another_tool(store, "b", "2026-11-20T12:30:00+02:00", "s", 1, None, None, None)
    by_another_tool(store, "b", "2026-13-45", "s", 0, None, None, None)
    by_another_tool(store, "b", "garbage", "t", 0, None, None, None)
    assert select(store, "select * from v_session_skill_summary order by session_id") == [
        ("s", 2, 6, 2, 4, 20.0, "2026-11-20 09:00:00", "2026-11-20T12:30:00+02:00"),
        ("t", 1, 1, 0, 1, 0.0, None, None),
    ]


def test_days_are_utc_days(store: Store) -> None:
    record(store, 1, invoked_at="2026-11-20T23:59:59.999999+00:00", duration_seconds=4.0)
    by_another_tool(store, "commit", "2026-11-21T01:30:00+02:00", "s", 0, None, 2.0, None)
    by_another_tool(store, "commit", "2026-11-21 00:00:00", "s", 1, None, None, None)
    by_another_tool(store, "commit", "2026-13-45", "s", 0, None, None, None)
    assert select(store, "select * from v_daily_skill_source order by date") == [
        (None, "commit", 1, 0, 1, None),
        ("2026-11-20", "commit", 2, 1, 1, 3.0),
        ("2026-11-21", "commit", 1, 1, 0, None),
    ]


def test_the_preferred_workflow_may_have_dots(store: Store) -> None:
    """Session-Buddy looked the key up as a JSON path and found nothing."""
    for number, path in enumerate(["a.b", "a.b", "[0]", None]):
        record(store, number, workflow_path=path)
    store.connection.execute("insert into skill_metrics (skill_name) values ('only-classified')")
    assert select(
        store, "select skill_name, total_invocations, preferred_workflow from v_top_skills"
    ) == [("commit", 4, "a.b")]


def test_first_and_last_are_the_earliest_and_the_latest(store: Store) -> None:
    """D24: they were the first and the last inserted."""
    record(store, 1, invoked_at=ago(days=3))
    record(store, 2, invoked_at=ago(days=30))
    by_another_tool(store, "commit", "2026-13-45", "s", 0, None, None, None)
    first, last, days = select(
        store, "select first_invoked, last_invoked, days_since_last_use from v_skill_effectiveness"
    )[0]
    assert first[:13] == ago(days=30)[:13]
    assert last[:13] == ago(days=3)[:13]
    assert days == pytest.approx(3, abs=0.01)
    assert select(store, "select last_invocation_at from skill_metrics_cache") == [(last,)]


# V3 --------------------------------------------------------------------------------------------


def test_phases_in_percent_of_all_runs(store: Store) -> None:
    for number, (outcome, seconds) in enumerate(
        [("completed", 2.0), ("completed", None), ("failed", 10.0), ("rejected", None)]
    ):
        record(
            store, number, outcome=outcome, duration_seconds=seconds, workflow_phase="verification"
        )
    record(store, 9, skill_name="plain")  # has no phase
    assert select(store, "select * from v_skill_effectiveness_by_phase") == [
        ("commit", "verification", 4, 2, 2, 6.0, 2.0, 50.0)
    ]
    assert select(store, "select * from v_skills_by_phase_usage") == [
        ("commit", "verification", 4, 50.0)
    ]
    assert select(store, "select * from v_workflow_phase_patterns") == [
        ("verification", 4, 1, 2, 6.0)
    ]


# V4 --------------------------------------------------------------------------------------------

DASHBOARD = (
    "select skill_name, invocation_count_1h, invocation_count_24h, avg_completion_rate_24h,"
    " total_invocations, completion_rate, avg_duration_seconds from v_realtime_skill_dashboard"
    " order by skill_name"
)


def test_windows_of_the_dashboard_decay(store: Store) -> None:
    """D17: seven calls 20 days ago and one now were 8 in the last hour; they are 1."""
    for number in range(7):
        record(store, number, invoked_at=ago(days=20, seconds=number), outcome="failed")
    record(store, 8, invoked_at=ago(minutes=30))
    record(store, 9, invoked_at=ago(minutes=90), outcome="failed")
    record(store, 10, invoked_at=ago(hours=23.9), outcome="rejected", duration_seconds=None)
    record(store, 11, invoked_at=ago(hours=24.1))
    assert select(store, DASHBOARD) == [("commit", 1, 3, 0.5, 11, 2 / 10, 1.5)]


def test_the_dashboard_counts_rows_of_other_tools_whatever_their_clock(store: Store) -> None:
    """D36: text of one form was compared with text of another."""

    def at(text: str, **time: float) -> str:
        return (times.now() - timedelta(**time)).strftime(text)

    forms = [
        (at("%Y-%m-%d %H:%M:%S", minutes=30), 1, None),
        (at("%Y-%m-%dT%H:%M:%SZ", minutes=31), 0, "boom"),
        (at("%Y-%m-%dT%H:%M:%S+02:00", minutes=32 - 120), 0, ""),
        (at("%Y-%m-%dT%H:%M:%S-11:00", hours=23 + 11), 1, None),
        (at("%Y-%m-%dT%H:%M:%S+13:00", hours=25 - 13), 1, None),  # a day ago, dated tomorrow
        ("2026-13-45", 1, None),
        (at("%Y-%m-%dT%H:%M:%SZ", hours=-1), 1, None),  # a clock that is wrong
    ]
    for start, completed, error in forms:
        by_another_tool(store, "commit", start, "s", completed, error, None, None)
    assert select(store, DASHBOARD) == [("commit", 3, 4, 2 / 3, 7, 4 / 5, None)]


def test_the_dashboard_shows_open_anomalies_only(store: Store) -> None:
    for number, name in enumerate(["open", "resolved", "calm"]):
        record(store, number, skill_name=name)
    store.connection.executescript("""
        insert into skill_anomalies (skill_name, detected_at, anomaly_type, deviation_score,
                                     resolved_at)
        values ('open', 'x', 'drop', -4.5, null), ('open', 'x', 'spike', 3.0, null),
               ('open', 'x', 'drop', -9.0, 'y'), ('resolved', 'x', 'drop', -5.0, 'y');
    """)
    assert select(
        store,
        "select skill_name, is_anomalous, anomaly_score from v_realtime_skill_dashboard order by 1",
    ) == [("calm", 0, None), ("open", 1, 4.5), ("resolved", 0, None)]


def fill_day(store: Store, days_ago: int, completed: int, failed: int, rejected: int = 0) -> None:
    store.connection.execute(
        "insert into skill_hour (skill_name, hour, kind, completed, failed, rejected)"
        " values ('commit', strftime('%Y-%m-%dT00', 'now', ?), 'skill', ?, ?, ?)",
        (f"-{days_ago} days", completed, failed, rejected),
    )


TREND = (
    "select avg_completion_rate_7d, max_completion_rate_7d, min_completion_rate_7d, trend_slope"
    " from v_skill_effectiveness_trend"
)


def test_a_falling_skill_has_a_falling_slope(store: Store) -> None:
    """D18: (max - min) / (n - 1) is never negative; 1.0, .8, .6, .4 fall by .2 a day."""
    for days_ago, completed in enumerate((4, 6, 8, 10)):
        fill_day(store, days_ago, completed, 10 - completed)
    assert select(store, TREND)[0] == pytest.approx((0.7, 1.0, 0.4, -0.2))


def test_two_days_have_a_slope_and_one_has_none(store: Store) -> None:
    """D18: NULL for two days 1, 0; right is -1."""
    fill_day(store, 1, 5, 0)
    assert select(store, TREND) == [(1.0, 1.0, 1.0, None)]
    fill_day(store, 0, 0, 5)
    assert select(store, TREND) == [(0.5, 1.0, 0.0, -1.0)]


def test_days_weigh_by_their_runs_and_old_days_not_at_all(store: Store) -> None:
    """D22: one failing call today turned five days at .9 into a fall of .129 a day."""
    for days_ago in range(1, 6):
        fill_day(store, days_ago, 180, 20, rejected=50)
    fill_day(store, 0, 0, 1)
    fill_day(store, 7, 0, 500)
    days, rates, n = np.arange(6.0), np.array([0.9] * 5 + [0.0]), np.array([200.0] * 5 + [1.0])
    slope = np.polyfit(days, rates, 1, w=np.sqrt(n))[0]
    assert select(store, TREND)[0] == pytest.approx((900 / 1001, 0.9, 0.0, slope))
    assert abs(slope) < 0.01


def test_a_day_of_refusals_alone_says_nothing(store: Store) -> None:
    fill_day(store, 1, 5, 5)
    fill_day(store, 0, 0, 0, rejected=5)
    assert select(store, TREND) == [(0.5, 0.5, 0.5, None)]


def test_a_baseline_is_compared_with_all_that_is_recorded_here(store: Store) -> None:
    """Runs are counted, not sessions (D23), and a refusal is not a failure."""
    outcomes = ["completed"] * 3 + ["failed"] + ["rejected", "interrupted"]
    for number, outcome in enumerate(outcomes):
        record(store, number, outcome=outcome, session_id=f"s{number % 2}")
    by_another_tool(store, "commit", ago(hours=1), "s9", 0, "boom", None, None)
    store.connection.executescript("""
        insert into skill_metrics (skill_name) values ('never-here');
        insert into skill_community_baselines (skill_name, total_users, global_completion_rate,
                                               effectiveness_percentile, last_updated)
        values ('commit', 9, 0.75, 40.0, 'x'), ('never-here', 9, 0.5, 10.0, 'x');
    """)
    found = select(store, "select * from v_community_baseline_comparison order by skill_name")
    assert found == [
        ("commit", 7, 3 / 5, 0.75, 40.0, pytest.approx(-0.15)),
        ("never-here", 0, None, 0.5, 10.0, None),
    ]


@pytest.mark.parametrize(
    ("lift", "name"),
    [
        (2.0, "strong_positive"),
        (1.99, "moderate_positive"),
        (1.5, "moderate_positive"),
        (1.01, "weak_positive"),
        (1.0, "independent"),
        (0.99, "weak_negative"),
        (0.51, "weak_negative"),
        (0.5, "moderate_negative"),
        (0.0, "moderate_negative"),
        (None, "unknown"),
    ],
)
def test_pairs_are_named_by_their_lift(store: Store, lift: float | None, name: str) -> None:
    store.connection.execute("insert into skill_metrics (skill_name) values ('a'), ('b')")
    store.connection.execute(
        "insert into skill_dependencies (skill_a, skill_b, co_occurrence_count, lift_score)"
        " values ('a', 'b', 7, ?)",
        (lift,),
    )
    assert select(store, "select * from v_skill_dependency_network") == [("a", "b", 7, lift, name)]


def test_a_test_counts_users_and_failures(store: Store) -> None:
    """D16: 4 users with 2 of 4 each were 16 users at a rate of 1.0; they are 4 at .5."""
    execute = store.connection.execute
    execute("insert into skill_metrics (skill_name) values ('commit')")
    for name in ("t", "empty"):
        execute(
            "insert into ab_test_configs (test_name, control_strategy, treatment_strategy,"
            " start_date) values (?, 'a', 'b', 'x')",
            (name,),
        )
    for user in range(6):
        group = "control" if user < 4 else "treatment"
        execute(
            "insert into ab_test_assignments (test_id, user_id, group_name) values (1, ?, ?)",
            (str(user), group),
        )
    outcomes = [(str(user), run < 2) for user in range(4) for run in range(4)]
    outcomes += [("4", True), ("4", True), ("4", False), ("stranger", False)]
    store.connection.executemany(
        "insert into ab_test_outcomes (test_id, user_id, skill_name, completed)"
        " values (1, ?, 'commit', ?)",
        outcomes,
    )
    assert select(store, "select * from v_ab_test_summary order by test_id") == [
        (1, "t", "a", "b", "running", 6, 4, 2, 0.5, 2 / 3),
        (2, "empty", "a", "b", "running", 0, 0, 0, None, None),
    ]


def test_the_catalog_counts_sessions_and_shows_what_was_never_used(store: Store) -> None:
    for number, (session, outcome) in enumerate(
        [("s1", "completed"), ("s1", "failed"), ("s2", "rejected")]
    ):
        record(store, number, session_id=session, outcome=outcome, duration_seconds=number * 2.0)
    store.connection.executescript("""
        insert into skill_metrics (skill_name) values ('never-used');
        insert into skill_modalities (skill_name, modality_type, input_format, output_format)
        values ('commit', 'code', 'diff', 'message'), ('never-used', 'testing', null, null);
        insert into skill_categories (category_name, domain)
        values ('Git', 'code'), ('Text', 'documentation');
        insert into skill_category_mapping (skill_name, category_id)
        values ('commit', 1), ('commit', 2);
    """)
    assert select(store, "select * from v_multimodal_skill_catalog order by 1, category_name") == [
        ("commit", "code", "diff", "message", 0, 2, 0.5, 2.0, "Git", "code"),
        ("commit", "code", "diff", "message", 0, 2, 0.5, 2.0, "Text", "documentation"),
        ("never-used", "testing", None, None, 0, 0, None, None, None, None),
    ]


def test_every_view_has_the_columns_of_session_buddy(store: Store) -> None:
    columns = {
        "v_session_skill_summary": "session_id, unique_skills, total_invocations, completed_count,"
        " abandoned_count, total_duration_seconds, first_skill_at, last_skill_at",
        "v_skill_effectiveness": "skill_name, total_invocations, completed_invocations,"
        " abandoned_invocations, completion_rate, avg_duration_seconds, first_invoked,"
        " last_invoked, days_since_last_use",
        "v_top_skills": "skill_name, total_invocations, completion_rate, avg_duration_seconds,"
        " preferred_workflow",
        "v_daily_skill_source": "date, skill_name, invocations, completions, abandonments,"
        " avg_duration_seconds",
        "v_skill_effectiveness_by_phase": "skill_name, workflow_phase, total_invocations,"
        " completed_count, abandoned_count, avg_duration_seconds, avg_completion_time,"
        " completion_rate",
        "v_skills_by_phase_usage": "skill_name, workflow_phase, usage_count, success_rate",
        "v_workflow_phase_patterns": "workflow_phase, invocations_in_phase,"
        " unique_skills_in_phase, successful_completions, avg_phase_duration",
        "v_ab_test_summary": "test_id, test_name, control_strategy, treatment_strategy, status,"
        " total_users, control_users, treatment_users, control_completion_rate,"
        " treatment_completion_rate",
        "v_community_baseline_comparison": "skill_name, user_invocations, user_completion_rate,"
        " baseline_completion_rate, effectiveness_percentile, delta_from_baseline",
        "v_multimodal_skill_catalog": "skill_name, modality_type, input_format, output_format,"
        " requires_human_review, total_sessions, completion_rate, avg_duration_seconds,"
        " category_name, domain",
        "v_realtime_skill_dashboard": "skill_name, last_invocation_at, invocation_count_1h,"
        " invocation_count_24h, avg_completion_rate_24h, is_anomalous, anomaly_score,"
        " total_invocations, completion_rate, avg_duration_seconds",
        "v_skill_dependency_network": "skill_a, skill_b, co_occurrence_count, lift_score,"
        " relationship_type",
        "v_skill_effectiveness_trend": "skill_name, avg_completion_rate_7d,"
        " max_completion_rate_7d, min_completion_rate_7d, trend_slope",
    }
    found = {
        name: ", ".join(column[1] for column in select(store, f"pragma table_info({name})"))
        for (name,) in select(store, "select name from sqlite_master where type = 'view'")
    }
    assert found == columns
