"""The six V4 views over recorded, authored and written-back tables, against numbers by hand."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from sb_pipelines.defs import baselines, clusters, dependencies
from sb_serving import times
from sb_serving.events import Invocation
from sb_serving.stats import baseline
from sb_serving.store import Store
from tests.builders import invocation
from tests.warehouse_builder import Place, make_empty_store

AUTHORED = """
insert into ab_test_configs (test_id, test_name, control_strategy, treatment_strategy, start_date)
values (1, 'order', 'old', 'new', '2026-11-01');
insert into ab_test_assignments (test_id, user_id, group_name)
values (1, 'a', 'control'), (1, 'b', 'treatment'), (1, 'c', 'treatment');
insert into ab_test_outcomes (test_id, user_id, skill_name, completed)
values (1, 'a', 'plan', 1), (1, 'a', 'plan', 0), (1, 'b', 'plan', 1), (1, 'c', 'plan', 1);
insert into skill_categories (category_id, category_name, domain) values (7, 'Testing', 'testing');
insert into skill_category_mapping (skill_name, category_id) values ('plan', 7);
insert into skill_modalities (skill_name, modality_type, input_format, output_format, created_at)
values ('plan', 'code', 'text', 'tasks', '2026-11-01');
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Ten sessions hold `plan` and `write`, five of them three days ago, five just now; ten others.

    `write` completed three days ago and fails now.
    """
    folder = tmp_path_factory.mktemp("views")
    place = Place(folder, make_empty_store(tmp_path_factory.mktemp("empty")))
    now = times.now()
    recorded: list[Invocation] = []

    def add(skill: str, session: int, outcome: str = "completed") -> None:
        ago = timedelta(days=3) if session % 10 < 5 else timedelta()
        at = now - ago - timedelta(milliseconds=100 - len(recorded))
        recorded.append(
            invocation(
                len(recorded),
                skill_name=skill,
                session_id=f"s{session}",
                invoked_at=times.to_utc_text(at),
                outcome=outcome,
            )
        )

    for session in range(10):
        add("plan", session)
        add("write", session, "completed" if session < 5 else "failed")
        add("other", session + 10)
    place.add(*recorded)
    place.refresh()
    with place.warehouse.writing() as connection:
        baselines.update(connection, now.replace(tzinfo=None))
    dependencies.update(place.warehouse, now.replace(tzinfo=None))
    clusters.update(place.warehouse, now.replace(tzinfo=None))
    with Store.open(place.db) as store:
        store.connection.executescript(AUTHORED)
    place.write_back(now)
    return place


def test_the_dependency_network(place: Place) -> None:
    """Lift: 20 sessions * 10 / (10 * 10)."""
    assert place.stored("select * from v_skill_dependency_network") == [
        ("plan", "write", 10, 2.0, "strong_positive")
    ]


def test_the_comparison_with_the_community(place: Place) -> None:
    """One user: everything may be shown. Two of three rates tie above the third."""
    expected = baseline.fit([10, 10, 5], [10, 10, 10]).rate([10, 10, 5], [10, 10, 10])
    other, plan, write = place.stored(
        "select skill_name, user_invocations, user_completion_rate, baseline_completion_rate,"
        " effectiveness_percentile, delta_from_baseline from v_community_baseline_comparison"
        " order by skill_name"
    )
    for row, name, rate, shrunk, percentile in (
        (other, "other", 1.0, expected[0], 400 / 6),
        (plan, "plan", 1.0, expected[1], 400 / 6),
        (write, "write", 0.5, expected[2], 100 / 6),
    ):
        assert row[:3] == (name, 10, rate)
        assert row[3:] == pytest.approx((shrunk, percentile, rate - shrunk))


def test_the_trend_of_seven_days(place: Place) -> None:
    """From 1 to 0 in three days."""
    rows = {row[0]: row[1:] for row in place.stored("select * from v_skill_effectiveness_trend")}
    assert rows["plan"] == (1.0, 1.0, 1.0, 0.0)
    assert rows["write"] == pytest.approx((0.5, 1.0, 0.0, -1 / 3))


def test_the_dashboard_counts_its_windows_when_it_is_read(place: Place) -> None:
    rows: dict[str, Any] = {
        row[0]: row[1:]
        for row in place.stored(
            "select skill_name, invocation_count_1h, invocation_count_24h,"
            " avg_completion_rate_24h, is_anomalous, total_invocations, completion_rate,"
            " avg_duration_seconds from v_realtime_skill_dashboard"
        )
    }
    assert rows["plan"] == (5, 5, 1.0, 0, 10, 1.0, 1.5)
    assert rows["write"] == (5, 5, 0.0, 0, 10, 0.5, 1.5)


def test_experiments_and_catalog_read_what_people_wrote(place: Place) -> None:
    assert place.stored(
        "select test_name, total_users, control_users, treatment_users, control_completion_rate,"
        " treatment_completion_rate from v_ab_test_summary"
    ) == [("order", 3, 1, 2, 0.5, 1.0)]
    assert place.stored(
        "select skill_name, total_sessions, completion_rate, avg_duration_seconds, category_name"
        " from v_multimodal_skill_catalog"
    ) == [("plan", 10, 1.0, 1.5, "Testing")]


def test_groups_are_written_back_whole(place: Place) -> None:
    ((cluster_id, name, centroid),) = place.stored(
        "select cluster_id, cluster_name, centroid_embedding from skill_clusters"
    )
    assert cluster_id == 1
    assert set(name.split(", ")) == {"other", "plan", "write"}
    assert len(np.frombuffer(centroid, "<f4")) == 1
    members = place.stored("select skill_name, cluster_id from skill_cluster_membership")
    assert sorted(members) == [("other", 1), ("plan", 1), ("write", 1)]
    assert place.stored("pragma foreign_key_check") == []


def test_the_same_results_computed_again_write_nothing(place: Place) -> None:
    """They differ in the time of their computation alone."""
    later = times.now().replace(tzinfo=None)
    with place.warehouse.writing() as connection:
        baselines.update(connection, later)
    dependencies.update(place.warehouse, later)
    done = place.write_back()
    for table in ("skill_community_baselines", "skill_dependencies"):
        assert (done[table].written, done[table].removed) == (0, 0), table
