"""What is removed or merged changes no number that anybody is shown."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner

from sb_pipelines import cli
from sb_pipelines.definitions import build
from sb_serving import times
from sb_serving.settings import Settings
from sb_serving.store import Store, retention
from tests.builders import invocation, new_store

OLD = [("2026-01-01", hour, skill) for hour in (0, 3, 23) for skill in ("a", "b")]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Two old days, hour by hour, and a day that is to stay."""
    with new_store(tmp_path) as opened:
        rows = [*OLD, ("2026-01-02", 5, "a"), ("2026-01-02", 7, "a"), ("2026-03-01", 9, "a")]
        opened.import_batch(
            [
                invocation(
                    number,
                    skill_name=skill,
                    invoked_at=f"{day}T{hour:02d}:30:00Z",
                    duration_seconds=number / 4,
                    outcome=["completed", "failed", "rejected"][number % 3],
                )
                for number, (day, hour, skill) in enumerate(rows)
            ]
        )
        yield opened


def select(store: Store, query: str) -> list[Any]:
    return store.connection.execute(query).fetchall()


SUMS = (
    "select skill_name, substr(hour, 1, 10), min(kind), sum(completed), sum(failed), sum(rejected),"
    " sum(duration_n), sum(duration_sum) from skill_hour group by 1, 2 order by 1, 2"
)


def test_old_hours_become_days_and_every_sum_stays(store: Store) -> None:
    before = select(store, SUMS)
    shown = select(store, "select * from v_realtime_skill_dashboard")
    limit = date(2026, 3, 1)
    assert retention.hours_to_merge(store.connection, limit) == 6
    assert retention.merge_hours(store, limit) == 5
    assert retention.hours_to_merge(store.connection, limit) == 0
    assert select(store, "select hour, skill_name from skill_hour order by 1, 2") == [
        ("2026-01-01T00", "a"),
        ("2026-01-01T00", "b"),
        ("2026-01-02T00", "a"),
        ("2026-03-01T09", "a"),
    ]
    assert select(store, SUMS) == before
    assert select(store, "select * from v_realtime_skill_dashboard") == shown
    assert retention.merge_hours(store, limit) == 0


def test_a_late_row_is_merged_by_the_next_run(store: Store) -> None:
    limit = date(2026, 3, 1)
    retention.merge_hours(store, limit)
    store.record(invocation(50, skill_name="a", invoked_at="2026-01-01T03:00:00Z"))
    before = select(store, SUMS)
    assert retention.merge_hours(store, limit) == 1
    assert select(store, SUMS) == before


def test_the_job_merges_what_the_setting_says(sb_home: Path) -> None:
    config = Settings.load(keep_hours_days=10)
    ages = [timedelta(days=days, hours=1) for days in (9, 12, 12)]
    with Store.open(config.skills_db, create=True) as store:
        for number, age in enumerate(ages):
            moment = (times.now() - age).replace(hour=3 + number)
            store.record(invocation(number, invoked_at=times.to_utc_text(moment)))
        with dg.DagsterInstance.ephemeral() as instance:
            job = build(config).resolve_job_def("housekeeping")
            assert job.execute_in_process(instance=instance).success
        hours = [hour[11:] for (hour,) in select(store, "select hour from skill_hour order by 1")]
        assert hours == ["00", "03"]


def test_status_tells_sizes_ages_and_what_will_go(sb_home: Path) -> None:
    config = Settings.load()
    long_ago = times.to_utc_text(times.now() - timedelta(days=200))
    with Store.open(config.skills_db, create=True) as store:
        store.record(invocation(1, invoked_at=long_ago[:11] + "05:00:00+00:00"))
    facts = json.loads(CliRunner().invoke(cli.sb, ["status", "--json"]).output)
    assert 199 < facts["skills_db"]["last_event_age_seconds"] / 86_400 < 202
    assert {"skills.db", "backups", "warehouse", "snapshots", "dagster"} == set(facts["bytes"])
    assert [*facts["to_be_removed"].values()] == ["1 rows", 0, 0]
    shown = CliRunner().invoke(cli.sb, ["status"]).output
    assert re.search(r"\(20[01] days ago\)", shown)  # by the time of day
    assert "which become days: 1 rows" in shown


def test_status_of_a_time_that_cannot_be_read(sb_home: Path) -> None:
    config = Settings.load()
    Store.open(config.skills_db, create=True).close()
    with sqlite3.connect(config.skills_db) as connection:
        connection.execute(
            "insert into skill_invocation (skill_name, invoked_at, session_id)"
            " values ('a', 'soon', 's')"
        )
    connection.close()
    facts = json.loads(CliRunner().invoke(cli.sb, ["status", "--json"]).output)
    assert facts["skills_db"]["last_event_age_seconds"] is None
