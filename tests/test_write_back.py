"""Results in `skills.db`: they equal the warehouse's, whatever happened before."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sb_pipelines.defs import write_back
from sb_pipelines.resources import set_watermark
from sb_serving import times
from sb_serving.errors import SbError
from sb_serving.events import Invocation
from sb_serving.store import Store, derived
from sb_serving.store import connection as connections
from sb_serving.store.derived import Brought, Table
from tests.builders import invocation
from tests.warehouse_builder import Place, make_empty_store

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
SERIES = (
    "select skill_name, timestamp, invocation_count, completion_rate, avg_duration_seconds,"
    " unique_sessions from skill_time_series order by skill_name, timestamp"
)
CACHE = (
    "select skill_name, invocation_count_1h, invocation_count_24h, avg_completion_rate_24h"
    " from skill_metrics_cache order by skill_name"
)


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_empty_store(tmp_path_factory.mktemp("empty"))


@pytest.fixture
def place(tmp_path: Path, empty_store: Path) -> Place:
    return Place(tmp_path, empty_store)


def at(hours: float = 0.0) -> str:
    return times.to_utc_text(NOON + timedelta(hours=hours))


def some(count: int, seed: int, days: float = 3.0) -> list[Invocation]:
    draw = random.Random(seed)
    return [
        invocation(
            seed * 10_000 + number,
            skill_name=draw.choice(["commit", "deploy", "review"]),
            invoked_at=at(-draw.uniform(0, 24 * days)),
            outcome=draw.choice(["completed", "failed", "rejected"]),
            duration_seconds=draw.choice([None, 0.5, 3.0]),
            session_id=f"s{draw.randrange(5)}",
        )
        for number in range(count)
    ]


def expected(place: Place) -> list[tuple[Any, ...]]:
    """The series as the warehouse has it, put together by another way."""
    return [
        (skill, f"{hour:%Y-%m-%dT%H}:00:00.000000+00:00", n, rate, average, sessions)
        for skill, hour, n, rate, average, sessions in place.rows(
            "select skill_name, hour, n, completion_rate, duration_avg, unique_sessions"
            " from skill_time_series order by skill_name, hour"
        )
    ]


def assert_equal(place: Place) -> None:
    stored = place.stored(SERIES)
    wanted = expected(place)
    assert [row[:3] + row[5:] for row in stored] == [row[:3] + row[5:] for row in wanted]
    for have, want in zip(stored, wanted, strict=True):
        assert have[3] == want[3]
        assert have[4] == pytest.approx(want[4])
    assert place.stored("pragma foreign_key_check") == []
    assert place.rows("select * from changed_hours") == []


def test_rows_are_those_of_the_warehouse_by_hand(place: Place) -> None:
    place.add(
        invocation(1, invoked_at=at(), duration_seconds=2.0, session_id="a"),
        invocation(2, invoked_at=at(0.5), duration_seconds=4.0, outcome="failed", session_id="b"),
        invocation(3, invoked_at=at(0.9), duration_seconds=None, outcome="rejected"),
        invocation(4, invoked_at=at(-30), skill_name="Read", kind="tool", duration_seconds=None),
    )
    place.refresh()
    done = place.write_back(NOON + timedelta(hours=1.2))
    assert done == {
        "skill_time_series": Brought(written=2),
        "skill_metrics_cache": Brought(written=1),
    }
    assert place.stored(SERIES) == [
        ("Read", "2026-11-19T06:00:00.000000+00:00", 1, 1.0, None, 1),
        ("commit", "2026-11-20T12:00:00.000000+00:00", 3, 0.5, 3.0, 3),
    ]
    # "Read" ran more than a day before: its counters stay 0, and there is no rate.
    assert place.stored(CACHE) == [("Read", 0, 0, None), ("commit", 2, 3, 0.5)]


def test_only_what_changed_is_written(place: Place) -> None:
    """Nothing new: nothing written. A late row: one row, and the counters that it moves."""
    place.add(*some(300, 1))
    place.refresh()
    assert place.write_back(NOON)["skill_time_series"].written > 100
    ids = place.stored("select id from skill_time_series order by id")
    assert place.write_back(NOON) == {
        "skill_time_series": Brought(),
        "skill_metrics_cache": Brought(),
    }
    place.add(invocation(1, invoked_at=at(-50), skill_name="deploy"))
    place.refresh()
    assert place.write_back(NOON) == {
        "skill_time_series": Brought(written=1),
        "skill_metrics_cache": Brought(),
    }
    now = place.stored("select id from skill_time_series order by id")
    assert len({*ids} - {*now}) <= 1
    assert_equal(place)


def test_counters_decay_with_the_next_run(place: Place) -> None:
    place.add(invocation(1, invoked_at=at(-0.5)))
    place.refresh()
    place.write_back(NOON)
    assert place.stored(CACHE) == [("commit", 1, 1, 1.0)]
    ((before,),) = place.stored("select last_invocation_at from skill_metrics_cache")
    place.write_back(NOON + timedelta(hours=2))
    assert place.stored(CACHE) == [("commit", 0, 1, 1.0)]
    place.write_back(NOON + timedelta(days=2))
    assert place.stored(CACHE) == [("commit", 0, 0, None)]
    assert place.stored("select last_invocation_at, updated_at from skill_metrics_cache") == [
        (before, "2026-11-22T12:00:00.000000+00:00")
    ]


def test_few_changed_hours_read_no_other_rows(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a year holds is not read again for the news of a day."""
    place.add(*some(2000, 1, days=300))
    place.refresh()
    place.write_back(NOON)
    place.add(invocation(1, invoked_at=at(-1)))
    place.refresh()
    asked: list[str] = []

    def seen(path: Path) -> sqlite3.Connection:
        connection = connect_readonly(path)
        connection.set_trace_callback(asked.append)
        return connection

    connect_readonly = connections.connect_readonly
    monkeypatch.setattr(connections, "connect_readonly", seen)
    place.write_back(NOON)
    (query,) = (text for text in asked if "skill_time_series" in text)
    plan = place.stored(f"explain query plan {query}")
    assert any(
        "USING INDEX idx_time_series_skill_timestamp (skill_name=? AND timestamp=?)" in row[3]
        for row in plan
    )
    assert not any("SCAN s" in row[3] for row in plan)


@contextmanager
def killed_after(transactions: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whoever asks for one transaction more is stopped, as by a signal."""
    real = connections.transaction
    left = transactions

    @contextmanager
    def limited(*given: Any) -> Iterator[None]:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        with real(*given):
            yield

    with monkeypatch.context() as patch:
        patch.setattr(connections, "transaction", limited)
        yield


def test_a_run_that_was_stopped_is_completed_by_the_next(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(derived, "CHUNK", 10)
    for round_, days in enumerate([3.0, 90.0, 3.0]):  # few and many changed hours
        place.add(*some(60, round_ + 1, days))
        place.refresh()
        for stop in (0, 1, 3):
            with killed_after(stop, monkeypatch), pytest.raises(KeyboardInterrupt):
                place.write_back(NOON)
        place.write_back(NOON)
        assert_equal(place)


def test_random_histories_end_equal(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that somebody removed, added, doubled or changed in `skills.db`; rebuilt warehouses."""
    monkeypatch.setattr(write_back, "MANY_HOURS", 10)
    draw = random.Random(7)
    damages = [
        "delete from skill_time_series where id % 2",
        "insert into skill_time_series (skill_name, timestamp)"
        " select skill_name, timestamp from skill_time_series limit 3",
        "insert into skill_time_series (skill_name, timestamp) values ('commit', '2020-01-01')",
        "delete from skill_time_series",
        "select 1",
    ]
    for round_ in range(8):
        place.add(*some(draw.randrange(1, 30), round_ + 10, days=draw.choice([0.01, 5.0])))
        place.stored(draw.choice(damages))
        if draw.random() < 0.2:
            place.warehouse.path.unlink()
        place.refresh()
        place.write_back(NOON)
        assert_equal(place)


def test_a_skill_that_the_store_does_not_know_is_left_out_and_told(place: Place) -> None:
    """Another tool cleaned up `skill_metrics`; a row without its parent would break its file."""
    place.add(invocation(1, invoked_at=at()), invocation(2, invoked_at=at(), skill_name="gone"))
    place.refresh()
    with sqlite3.connect(place.db) as connection:
        connection.execute("delete from skill_metrics where skill_name = 'gone'")
    connection.close()
    assert place.write_back(NOON)["skill_time_series"] == Brought(written=1, without_skill=1)
    assert [row[0] for row in place.stored(SERIES)] == ["commit"]
    assert place.write_back(NOON)["skill_time_series"] == Brought()


def test_a_table_that_was_never_computed_stays(place: Place) -> None:
    """After a rebuild the slow models come an hour later; what they said stays until then."""
    place.add(invocation(1, invoked_at=at()))
    place.refresh()
    place.write_back(NOON)
    before = place.stored(SERIES)
    place.warehouse.path.unlink()
    place.load()
    assert place.write_back(NOON) == {}
    assert place.stored(SERIES) == before


def test_tables_that_refer_to_each_other_are_written_in_order(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A unique name moves from one row to another, and a row goes with those that point to it."""
    place.add(invocation(1, invoked_at=at()))
    clusters = Table("skill_clusters", key=("cluster_id",), stamp="created_at")
    members = Table("skill_cluster_membership", key=("skill_name", "cluster_id"))
    queries = {
        clusters: "select cluster_id, cluster_name, created_at from c order by 1",
        members: "select skill_name, cluster_id, score as membership_score from m order by 1, 2",
    }
    monkeypatch.setattr(write_back, "TABLES", dict.fromkeys(queries, "groups"))
    monkeypatch.setattr(
        write_back.sql,
        "load",
        lambda name, load=write_back.sql.load: (
            next(
                (
                    query
                    for table, query in queries.items()
                    if name == f"write_back/{table.name}.sql"
                ),
                None,
            )
            or load(name)
        ),
    )
    place.load()
    states = [
        ([(1, "a"), (2, "b")], [("commit", 1)]),
        ([(1, "b"), (2, "a"), (3, "c")], [("commit", 3)]),
        ([(4, "c")], [("commit", 4)]),
        ([], []),
    ]
    for number, (groups, pairs) in enumerate(states):
        with place.warehouse.writing() as connection:
            set_watermark(connection, "groups", number, NOON.replace(tzinfo=None))
            connection.execute(
                "create or replace table c (cluster_id int, cluster_name text, created_at text)"
            )
            connection.execute(
                "create or replace table m (skill_name text, cluster_id int, score double)"
            )
            for group in groups:
                connection.execute("insert into c values (?, ?, 'now')", group)
            for pair in pairs:
                connection.execute("insert into m values (?, ?, 0.5)", pair)
        place.write_back(NOON)
        assert sorted(place.stored("select cluster_id, cluster_name from skill_clusters")) == groups
        assert place.stored("select skill_name, cluster_id from skill_cluster_membership") == pairs
        assert place.stored("pragma foreign_key_check") == []
        # Not computed since: not compared, whatever another tool did to them.
        assert place.write_back(NOON) == {}


RESULTS = """
    insert into skill_anomalies (id, skill_name, detected_at, anomaly_type, baseline_value,
        observed_value, deviation_score, resolved_at) values
        (1, 'commit', TIMESTAMP '2026-11-20', 'drop', 0.9, 0.5, -4.5, null),
        (2, 'review', TIMESTAMP '2026-11-19', 'spike', 1, 9, 6.0, TIMESTAMP '2026-11-20');
    insert into skill_community_baselines (skill_name, total_users, total_invocations,
        global_completion_rate, effectiveness_percentile, last_updated)
        values ('commit', 5, 40, 0.8, 40.0, TIMESTAMP '2026-11-20');
    insert into skill_dependencies (skill_a, skill_b, co_occurrence_count, lift_score, last_updated)
        values ('commit', 'review', 6, 2.5, TIMESTAMP '2026-11-20');
    insert into watermarks values ('skill_anomalies', 3, TIMESTAMP '2026-11-20'),
        ('skill_community_baselines', 3, TIMESTAMP '2026-11-20'),
        ('skill_dependencies', 3, TIMESTAMP '2026-11-20')
"""
AUTHORED = """
    insert into ab_test_configs (test_id, test_name, control_strategy, treatment_strategy,
        start_date) values (1, 'greeting', 'a', 'b', '2026-01-01');
    insert into ab_test_assignments (test_id, user_id, group_name) values (1, 'u', 'control');
    insert into ab_test_outcomes (test_id, user_id, skill_name, completed)
        values (1, 'u', 'commit', 1);
    insert into skill_categories (category_id, category_name, domain) values (1, 'git', 'vcs');
    insert into skill_category_mapping (skill_name, category_id) values ('commit', 1);
    insert into skill_modalities (skill_name, modality_type) values ('commit', 'text');
"""


def test_the_six_views_show_what_was_found(place: Place) -> None:
    """Three read what is written back, three what people and triggers wrote; all in one file."""
    now = times.now()
    moments = [times.to_utc_text(now - timedelta(minutes=minutes)) for minutes in (1, 2, 3)]
    place.add(
        invocation(1, invoked_at=moments[0], session_id="s", duration_seconds=2.0),
        invocation(
            2, invoked_at=moments[1], session_id="s", outcome="failed", duration_seconds=4.0
        ),
        invocation(3, invoked_at=moments[2], session_id="s", skill_name="review"),
    )
    place.refresh()
    with place.warehouse.writing() as connection:
        connection.execute(RESULTS)
    with sqlite3.connect(place.db) as store:
        store.executescript(AUTHORED)
    store.close()
    place.write_back(now)
    shown = {
        "v_realtime_skill_dashboard": "skill_name, invocation_count_24h, avg_completion_rate_24h,"
        " is_anomalous, anomaly_score, completion_rate, avg_duration_seconds",
        "v_community_baseline_comparison": "skill_name, user_invocations, user_completion_rate,"
        " baseline_completion_rate, effectiveness_percentile, round(delta_from_baseline, 9)",
        "v_skill_dependency_network": "*",
        "v_ab_test_summary": "test_name, total_users, control_users, control_completion_rate,"
        " treatment_completion_rate",
        "v_multimodal_skill_catalog": "skill_name, modality_type, total_sessions, completion_rate,"
        " category_name, domain",
    }
    assert {view: place.stored(f"select {what} from {view}") for view, what in shown.items()} == {
        "v_realtime_skill_dashboard": [
            ("commit", 2, 0.5, 1, 4.5, 0.5, 3.0),
            ("review", 1, 1.0, 0, None, 1.0, 1.5),
        ],
        "v_community_baseline_comparison": [("commit", 2, 0.5, 0.8, 40.0, -0.3)],
        "v_skill_dependency_network": [("commit", "review", 6, 2.5, "strong_positive")],
        "v_ab_test_summary": [("greeting", 1, 1, 1.0, None)],
        "v_multimodal_skill_catalog": [("commit", "text", 1, 0.5, "git", "vcs")],
    }
    trend = place.stored(
        "select skill_name, round(avg_completion_rate_7d, 9) from v_skill_effectiveness_trend"
        " order by 1"
    )
    assert trend == [("commit", 0.5), ("review", 1.0)]
    cached = place.stored(
        "select skill_name, is_anomalous, anomaly_score from skill_metrics_cache order by 1"
    )
    assert cached == [("commit", 1, -4.5), ("review", 0, None)]


def test_columns_that_do_not_begin_with_the_key_are_a_mistake(place: Place) -> None:
    with Store.open(place.db) as store, pytest.raises(ValueError, match="do not begin with"):
        derived.bring(store, write_back.SERIES, ["timestamp", "skill_name"], [])


def test_a_store_that_cannot_be_written_says_that_the_snapshot_is_there(place: Place) -> None:
    with (
        pytest.raises(SbError, match=r"was published, but .* locked.*write_back = false") as caught,
        write_back._published_anyway(),
    ):
        raise SbError("skills.db stayed locked", fix="Find it.")
    assert "Find it." in str(caught.value)
