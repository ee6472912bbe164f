"""The assets, checks, sensor and schedules of the batch side, run in this process."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest

from sb_pipelines import refresh as refreshing
from sb_pipelines.definitions import build
from sb_pipelines.defs import checks, housekeeping, publish, time_series
from sb_pipelines.defs.authored import AUTHORED
from sb_pipelines.defs.time_series import daily
from sb_pipelines.launcher import prepare_home
from sb_pipelines.refresh import RefreshResult, refresh
from sb_pipelines.resources import SkillsDb, Warehouse
from sb_serving import times
from sb_serving.errors import SbError
from sb_serving.events import Invocation
from sb_serving.settings import Settings
from sb_serving.snapshot import SnapshotHolder
from sb_serving.store import Store, expected
from tests.builders import SESSION_BUDDY_INSERT, invocation

SERIES = dg.AssetKey("skill_time_series")


def noon(days_ago: int) -> str:
    day = times.now().replace(hour=12, minute=0, second=0, microsecond=0)
    return times.to_utc_text(day - timedelta(days=days_ago))


def key(days_ago: int) -> str:
    return noon(days_ago)[:10]


@pytest.fixture
def config(sb_home: Path) -> Settings:
    """Partitions since 30 days ago."""
    return Settings.load(partitions_start=key(30))


def add(config: Settings, *rows: Invocation) -> None:
    with Store.open(config.skills_db, create=True) as store:
        store.import_batch(rows)


def on(days_ago: int, number: int, **fields: Any) -> Invocation:
    return invocation(number, invoked_at=noon(days_ago), **fields)


def snapshot_rows(config: Settings, query: str) -> list[Any]:
    holder = SnapshotHolder(config.snapshots)
    try:
        with holder.pin() as snapshot:
            assert snapshot is not None
            return snapshot.query(query)
    finally:
        holder.close()


def job(
    config: Settings, instance: dg.DagsterInstance, *, partition: str | None = None, **more: Any
) -> dg.ExecuteInProcessResult:
    return (
        build(config)
        .resolve_job_def("refresh")
        .execute_in_process(
            instance=instance,
            partition_key=partition or key(0),
            raise_on_error=False,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            **more,
        )
    )


@pytest.fixture(scope="module")
def forgotten() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture(autouse=True)
def one_ephemeral_instance(forgotten: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refreshes without an instance on disk share one: making it is a third of their time."""
    real = refreshing._instance

    @contextmanager
    def shared(settings: Settings) -> Iterator[dg.DagsterInstance]:
        if (settings.dagster_home / "dagster.yaml").exists():
            with real(settings) as instance:
                yield instance
        else:
            yield forgotten

    monkeypatch.setattr(refreshing, "_instance", shared)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


# --- a refresh ------------------------------------------------------------------------------------


def test_a_refresh_publishes_what_was_recorded(config: Settings) -> None:
    add(config, on(1, 1), on(1, 2, outcome="failed"), on(0, 3, skill_name="Read", kind="tool"))
    result = refresh(config)
    assert result == RefreshResult(
        snapshot_number=1,
        watermark_id=3,
        new_rows=3,
        invalid_rows=0,
        days_rebuilt=2,
        rebuilt="",
        run_id=result.run_id,
        seconds=result.seconds,
    )
    assert snapshot_rows(
        config, "select skill_name, kind, n, completion_rate from skill_time_series order by all"
    ) == [("Read", "tool", 1, 1.0), ("commit", "skill", 2, 0.5)]
    assert snapshot_rows(config, "select sum(n) from skill_totals") == [(3,)]
    add(config, on(0, 4))
    again = refresh(config)
    assert (again.snapshot_number, again.watermark_id, again.new_rows) == (2, 4, 1)


def test_a_snapshot_holds_results_and_no_events(config: Settings) -> None:
    add(config, on(0, 1))
    refresh(config)
    tables = {name for (name,) in snapshot_rows(config, "show tables")}
    assert tables == {"manifest", *publish.PUBLISHED, *publish.ALSO}


def test_the_manifest_tells_what_is_in_and_what_is_not(config: Settings) -> None:
    """Rows of 1970 and of the future are served, but counted as out of range."""
    add(
        config,
        on(0, 1),
        invocation(2, invoked_at="1970-01-01T05:00:00Z"),
        invocation(3, invoked_at="2225-01-01T05:00:00Z"),
    )
    with sqlite3.connect(config.skills_db) as connection:
        connection.execute(SESSION_BUDDY_INSERT, ("commit", "soon", "s", 1, None, None, None))
    connection.close()
    result = refresh(config)
    assert (result.invalid_rows, result.days_rebuilt) == (1, 3)
    columns = "watermark_id, invalid_rows, out_of_range_rows, watermark_at"
    ((known, invalid, out, latest),) = snapshot_rows(config, f"select {columns} from manifest")
    assert (known, invalid, out, str(latest)) == (4, 1, 2, "2225-01-01 05:00:00")
    assert snapshot_rows(config, "select year(hour) from skill_time_series order by 1") == [
        (1970,),
        (times.now().year,),
        (2225,),
    ]


def test_an_empty_store_publishes_an_empty_snapshot(config: Settings) -> None:
    add(config)
    result = refresh(config)
    assert (result.snapshot_number, result.watermark_id) == (1, 0)
    assert snapshot_rows(config, "select count(*) from skill_totals") == [(0,)]


def test_a_missing_store_is_one_clear_line(config: Settings) -> None:
    with pytest.raises(SbError, match=r"^there is no database at .*skills\.db\. Make one with"):
        refresh(config)
    assert not config.snapshots.exists()


def test_a_damaged_warehouse_mends_itself_in_one_refresh(config: Settings) -> None:
    """A file cut short opens well and breaks when it is read; the asset's retry rebuilds it."""
    add(config, *(on(n % 5, n) for n in range(50)))
    refresh(config)
    content = config.warehouse.read_bytes()
    config.warehouse.write_bytes(content[: len(content) // 3])
    result = refresh(config)
    assert (result.watermark_id, result.new_rows) == (50, 50)
    assert snapshot_rows(config, "select sum(n) from skill_totals") == [(50,)]


def test_a_replaced_store_is_told_and_rebuilt(config: Settings) -> None:
    add(config, on(1, 1), on(0, 2))
    refresh(config)
    for path in config.home.glob("skills.db*"):
        path.unlink()
    add(config, on(3, 1, skill_name="other"))
    result = refresh(config)
    assert result.rebuilt == "it ends at id 1, the warehouse at 2"
    assert snapshot_rows(config, "select skill_name, n from skill_totals") == [("other", 1)]


def test_a_full_refresh_computes_everything_anew(config: Settings) -> None:
    """A row that nobody would look at again is wrong; so is one that stands on no event."""
    add(config, on(5, 1), on(0, 2))
    refresh(config)
    with Warehouse(database=str(config.warehouse)).writing() as connection:
        connection.execute("update skill_totals set n = 7")
        connection.execute("update skill_time_series set n = 7")
        connection.execute("insert into session_skill values (1, 99)")
    result = refresh(config, full=True)
    assert (result.new_rows, result.rebuilt) == (2, "it was asked for")
    assert snapshot_rows(config, "select sum(n) from skill_totals") == [(2,)]
    assert snapshot_rows(config, "select sum(n) from skill_time_series") == [(2,)]
    with Warehouse(database=str(config.warehouse)).reading() as connection:
        assert connection.execute("select * from session_skill").fetchall() == [(1, 1)]
    assert refresh(config).rebuilt == ""


def test_a_run_that_fails_says_why_and_a_full_refresh_mends_it(config: Settings) -> None:
    """A table was dropped by hand; all that was told is that the step was tried three times."""
    add(config, on(0, 1))
    refresh(config)
    with Warehouse(database=str(config.warehouse)).get_connection() as connection:
        connection.execute("drop table watermarks")
    with pytest.raises(
        SbError, match=r"(?s)watermarks does not exist.*sb refresh --full"
    ) as failed:
        refresh(config)
    assert "max_retries" not in str(failed.value)
    assert refresh(config, full=True).new_rows == 1
    assert snapshot_rows(config, "select sum(n) from skill_totals") == [(1,)]


AUTHORED_ROWS = """
    insert into skill_metrics (skill_name) values ('commit') on conflict do nothing;
    insert into ab_test_configs (test_id, test_name, control_strategy, treatment_strategy,
        start_date, created_at) values (1, 'greeting', 'a', 'b', '2026-01-01', 'then');
    insert into ab_test_assignments values (1, 1, 'u', 'control', 'then');
    insert into ab_test_outcomes values (1, 1, 'u', 'commit', 1, 2.5, 'no number', 'then');
    insert into skill_categories values (1, 'git', null, null, 'vcs', 'then');
    insert into skill_category_mapping values ('commit', 1, 1, 'then');
    insert into skill_modalities values ('commit', 'text', null, 'diff', 0, 'then');
"""


def test_experiments_and_taxonomy_are_published_whole(config: Settings) -> None:
    """A value of another type is unknown, not an error: SQLite takes any in any column."""
    add(config, on(0, 1))
    with closing(sqlite3.connect(config.skills_db)) as connection:
        connection.executescript(AUTHORED_ROWS)
    refresh(config)
    found = {table: snapshot_rows(config, f"from {table}") for table in AUTHORED}
    assert found == {
        "ab_test_configs": [
            (1, "greeting", None, "a", "b", "2026-01-01", None, 100, None, 0.5, "running", "then")
        ],
        "ab_test_assignments": [(1, 1, "u", "control", "then")],
        "ab_test_outcomes": [(1, 1, "u", "commit", True, 2.5, None, "then")],
        "skill_categories": [(1, "git", None, None, "vcs", "then")],
        "skill_category_mapping": [("commit", 1, 1.0, "then")],
        "skill_modalities": [("commit", "text", None, "diff", False, "then")],
        "expected_dependencies": [],
    }
    with closing(sqlite3.connect(config.skills_db)) as connection:
        connection.execute("delete from skill_modalities")
        connection.commit()
    with Store.open(config.skills_db) as store:
        expected.write(store, "b", "a", 2.0)
    refresh(config)
    assert snapshot_rows(config, "select skill_a, skill_b, lift from expected_dependencies") == [
        ("a", "b", 2.0)
    ]
    assert snapshot_rows(config, "from skill_modalities") == []


def test_a_locked_warehouse_is_named(config: Settings, instance: dg.DagsterInstance) -> None:
    """Another connection of this process stands in for another program."""
    add(config, on(0, 1))
    refresh(config)
    impatient = Warehouse(database=str(config.warehouse), wait_seconds=0.2)
    run = build(config, {"warehouse": impatient}).resolve_job_def("refresh")
    with duckdb.connect(str(config.warehouse), read_only=True):
        result = run.execute_in_process(
            instance=instance, partition_key=key(0), raise_on_error=False
        )
    failures = [event for event in result.all_events if event.is_step_failure]
    assert [event.step_key for event in failures] == ["events"]
    reported = failures[0].step_failure_data.user_failure_data
    assert reported is not None
    assert f"{config.warehouse} stayed in use for 0.2 s" in str(reported.description)


def test_a_failed_check_publishes_nothing(
    config: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(config, on(0, 1))
    refresh(config)
    monkeypatch.setattr(SkillsDb, "count_until", lambda self, until: 2)
    monkeypatch.setattr("sb_pipelines.defs.events.replaced", lambda *given: "")
    with pytest.raises(SbError, match=r"the check events_complete of events failed: .*'in_range'"):
        refresh(config)
    assert [path.name for path in config.snapshots.glob("*.duckdb")] == ["000001.duckdb"]


def test_a_refresh_writes_results_back(config: Settings) -> None:
    """The views of `skills.db` and other tools see what was published."""
    hour_ago = times.to_utc_text(times.now() - timedelta(minutes=30))
    add(config, on(2, 1), invocation(2, invoked_at=hour_ago, outcome="failed"))
    refresh(config)
    with closing(sqlite3.connect(config.skills_db)) as connection:
        series = connection.execute(
            "select timestamp, invocation_count, completion_rate from skill_time_series order by 1"
        ).fetchall()
        assert [row[0][:10] for row in series] == [key(2), hour_ago[:10]]
        assert [row[1:] for row in series] == [(1, 1.0), (1, 0.0)]
        counters = "invocation_count_1h, invocation_count_24h, avg_completion_rate_24h"
        cached = connection.execute(f"select {counters} from skill_metrics_cache").fetchall()
        shown = connection.execute(f"select {counters} from v_realtime_skill_dashboard").fetchall()
        assert cached == shown == [(1, 1, 0.0)]


def test_write_back_can_be_turned_off(config: Settings) -> None:
    add(config, on(0, 1))
    refresh(replace(config, write_back=False))
    with closing(sqlite3.connect(config.skills_db)) as connection:
        assert connection.execute("select * from skill_time_series").fetchall() == []


def check_of(config: Settings, name: str) -> dg.AssetCheckResult:
    """Run one check on the warehouse as it is."""
    check = {
        "rows_are_possible": checks.rows_are_possible,
        "series_sums_to_totals": checks.series_sums_to_totals,
    }[name]
    result = check(warehouse=Warehouse(database=str(config.warehouse)))
    assert isinstance(result, dg.AssetCheckResult)
    return result


def test_checks_find_rows_that_cannot_be(config: Settings) -> None:
    add(config, on(2, 1), on(2, 2, skill_name="Read", kind="tool"))
    refresh(config)
    assert check_of(config, "rows_are_possible").passed
    assert check_of(config, "series_sums_to_totals").passed
    damages = {
        "update skill_time_series set completion_rate = 1.5": "rows_are_possible",
        "update skill_time_series set n = n + 1": "rows_are_possible",
        "update skill_time_series set unique_users = n + 1": "rows_are_possible",
        "update skill_totals set n = n + 1": "series_sums_to_totals",
        "delete from skill_time_series where skill_name = 'commit'": "series_sums_to_totals",
        "update skill_totals set duration_sum = duration_sum * 2": "series_sums_to_totals",
    }
    warehouse = Warehouse(database=str(config.warehouse))
    for damage, check in damages.items():
        with warehouse.writing() as connection:
            for table in ("skill_time_series", "skill_totals"):
                connection.execute(f"create table saved_{table} as from {table}")
            connection.execute(damage)
        assert not check_of(config, check).passed, damage
        with warehouse.writing() as connection:
            for table in ("skill_time_series", "skill_totals"):
                connection.execute(f"delete from {table}")
                connection.execute(f"insert into {table} from saved_{table}")
                connection.execute(f"drop table saved_{table}")


def test_tables_of_two_refreshes_at_once_are_not_compared(config: Settings) -> None:
    """One program has folded newer totals than the other has rebuilt hours for."""
    add(config, on(0, 1))
    refresh(config)
    with Warehouse(database=str(config.warehouse)).writing() as connection:
        connection.execute("update watermarks set id = 7 where name = 'totals'")
        connection.execute("update skill_totals set n = n + 1")
    evaluated = check_of(config, "series_sums_to_totals")
    assert evaluated.passed
    assert "not compared" in str(evaluated.description)


def test_publishing_before_computing_says_what_to_do(config: Settings) -> None:
    """A snapshot without hours would look like an installation where nothing ever happened."""
    add(config, on(0, 1))
    refresh(config)
    with Warehouse(database=str(config.warehouse)).writing() as connection:
        connection.execute("delete from watermarks where name = 'series'")
    published = next(
        asset
        for asset in build(config).assets or []
        if isinstance(asset, dg.AssetsDefinition)
        and dg.AssetKey("published_snapshot") in asset.keys
    )
    with pytest.raises(dg.Failure, match="skill_time_series was never computed"):
        published(
            warehouse=Warehouse(database=str(config.warehouse)),
            snapshots=build(config).resources["snapshots"],
        )


# --- partitions -----------------------------------------------------------------------------------


def test_a_first_run_materializes_only_days_that_have_events(
    config: Settings, instance: dg.DagsterInstance
) -> None:
    """Of thirty days, three have events; today is the one that was asked for."""
    add(config, on(20, 1), on(3, 2), on(3, 3))
    assert job(config, instance).success
    assert instance.get_materialized_partitions(SERIES) == {key(20), key(3), key(0)}


def test_late_events_materialize_their_day_again(
    config: Settings, instance: dg.DagsterInstance
) -> None:
    """Days before the first partition and after today are rebuilt without an event."""
    add(config, on(5, 1))
    assert job(config, instance).success
    add(config, on(5, 2), on(40, 3), on(-400, 4), invocation(5, invoked_at="1970-01-01T00:00:00Z"))
    result = job(config, instance)
    assert result.success
    late, asked = result.asset_materializations_for_node("skill_time_series")
    assert (late.partition, asked.partition) == (key(5), key(0))
    assert late.metadata == {"dagster/partition_row_count": dg.IntMetadataValue(1)}
    assert snapshot_rows(config, "select sum(n) from skill_time_series") == [(5,)]


def test_a_range_is_one_run_and_doing_it_twice_changes_nothing(
    config: Settings, instance: dg.DagsterInstance
) -> None:
    add(config, *(on(n % 10, n) for n in range(100)))
    assert job(config, instance).success
    before = snapshot_rows(config, "from skill_time_series order by all")
    series = build(config).resolve_job_def("refresh").get_subset(asset_selection={SERIES})
    for _ in range(2):
        result = series.execute_in_process(
            instance=instance,
            tags={
                "dagster/asset_partition_range_start": key(7),
                "dagster/asset_partition_range_end": key(0),
            },
        )
        made = [event for event in result.all_events if event.is_step_materialization]
        assert len(made) == 8
    assert job(config, instance).success
    assert snapshot_rows(config, "from skill_time_series order by all") == before
    assert len(instance.get_materialized_partitions(SERIES)) == 10


def test_plots_are_not_copied_into_every_partition(
    config: Settings, instance: dg.DagsterInstance
) -> None:
    """Metadata of a partitioned asset is stored once per partition."""
    add(config, on(3, 1), on(0, 2))
    result = job(config, instance)
    (series,) = [
        event
        for event in result.asset_materializations_for_node("skill_time_series")
        if event.partition == key(0)
    ]
    assert all(isinstance(value, dg.IntMetadataValue) for value in series.metadata.values())
    (published,) = result.asset_materializations_for_node("published_snapshot")
    plot = str(published.metadata["invocations_per_day"].value)
    assert f"to {key(0)}, at most 1 a day" in plot


def test_the_plot_has_one_bar_per_day() -> None:
    last = times.from_text("2026-11-20T15:00:00+00:00").replace(tzinfo=None)
    day = last.replace(hour=0)
    counts = {day: 700, day - timedelta(days=1): 1, day - timedelta(days=3): 350}
    bars = publish.plot(counts, last).splitlines()[1]
    assert len(bars) == publish.PLOT_DAYS
    assert bars[-4:] == "▅ ▂█"


# --- automation -----------------------------------------------------------------------------------


def tick(config: Settings, cursor: str | None, instance: dg.DagsterInstance) -> Any:
    sensor = build(config).resolve_sensor_def("new_events")
    context = dg.build_sensor_context(
        instance=instance,
        cursor=cursor,
        resources={"skills": SkillsDb(path=str(config.skills_db))},
        repository_def=build(config).get_repository_def(),
    )
    return sensor.evaluate_tick(context)


def test_the_sensor_skips_without_a_store(config: Settings, instance: dg.DagsterInstance) -> None:
    """A sensor that raises logs forty lines each tick."""
    data = tick(config, None, instance)
    assert data.run_requests == []
    assert "there is no database at" in data.skip_message


def test_the_sensor_skips_a_file_that_is_no_store(
    config: Settings, instance: dg.DagsterInstance
) -> None:
    config.skills_db.write_text("not a database, and long enough to be looked at")
    assert "is not a readable SQLite database" in tick(config, None, instance).skip_message


def test_the_sensor_asks_for_today_once_per_newest_row(
    config: Settings, instance: dg.DagsterInstance
) -> None:
    add(config, on(9, 1), on(2, 2))
    data = tick(config, None, instance)
    (request,) = data.run_requests
    assert (request.run_key, request.partition_key, data.cursor) == ("events-2", key(0), "2")
    data = tick(config, "2", instance)
    assert (data.run_requests, data.skip_message) == ([], "no rows past id 2")
    add(config, on(9, 3))
    assert [request.run_key for request in tick(config, "2", instance).run_requests] == ["events-3"]


def test_the_sensor_notices_a_shorter_store(config: Settings, instance: dg.DagsterInstance) -> None:
    add(config, on(0, 1))
    assert [request.run_key for request in tick(config, "9", instance).run_requests] == ["events-1"]


def test_the_hourly_schedule_asks_for_today_also_when_nothing_is_new(
    config: Settings, instance: dg.DagsterInstance
) -> None:
    schedule = build(config).resolve_schedule_def("hourly")

    def evaluate() -> Any:
        context = dg.build_schedule_context(
            instance=instance,
            resources={"skills": SkillsDb(path=str(config.skills_db))},
            repository_def=build(config).get_repository_def(),
        )
        return schedule.evaluate_tick(context)

    assert "there is no database" in evaluate().skip_message
    add(config)
    (request,) = evaluate().run_requests
    assert request.partition_key == key(0)


# --- the instance ---------------------------------------------------------------------------------


def test_runs_show_in_the_ui_and_what_they_made_outlives_them(config: Settings) -> None:
    """A partition's state is read from its run's events, which `delete_run` removes."""
    add(config, on(2, 1))
    home = prepare_home(config)
    run_id = refresh(config).run_id
    add(config, on(1, 2))
    refresh(config)
    assert (home / "history" / "runs" / f"{run_id}.db").exists()
    with dg.DagsterInstance.from_config(str(home)) as instance:
        run = instance.get_run_by_id(run_id)
        assert run is not None
        assert (run.job_name, run.status) == ("refresh", dg.DagsterRunStatus.SUCCESS)
        assert housekeeping.remove_old_runs(instance, times.now() - timedelta(days=1)) == 0
        assert housekeeping.remove_old_runs(instance, times.now() + timedelta(days=1)) == 2
        assert instance.get_runs() == []
        assert instance.get_materialized_partitions(SERIES) == {key(2), key(1), key(0)}
        for name in ("events", "skill_totals", "published_snapshot"):
            assert instance.get_latest_materialization_event(dg.AssetKey(name)) is not None
        # Reported events stay when there is nothing left to remove.
        assert housekeeping.remove_old_runs(instance, times.now() + timedelta(days=1)) == 0
        assert instance.get_materialized_partitions(SERIES) == {key(2), key(1), key(0)}
    assert not (home / "history" / "runs" / f"{run_id}.db").exists()
    assert not (home / "storage" / run_id).exists()


def test_the_audit_finds_a_row_that_grew_wrong(
    config: Settings, instance: dg.DagsterInstance
) -> None:
    add(config, on(2, 1, duration_seconds=4.0), on(2, 2, duration_seconds=8.0))
    refresh(config)
    run = build(config).resolve_job_def("audit")
    assert run.execute_in_process(instance=instance).success
    with Warehouse(database=str(config.warehouse)).writing() as connection:
        connection.execute("update skill_time_series set duration_p50 = duration_p50 + 0.5")
    result = run.execute_in_process(instance=instance, raise_on_error=False)
    found = {
        check.asset_key.to_user_string(): (check.passed, check.metadata["differing_rows"].value)
        for check in result.get_asset_check_evaluations()
    }
    assert found == {
        "skill_time_series": (False, 1),
        "skill_totals": (True, 0),
        "pair_count": (True, 0),
        "predictor_totals": (True, 0),
        "skill_dependencies": (True, 0),
    }


def test_partitions_run_from_the_setting_to_today(config: Settings) -> None:
    partitions = daily(config)
    assert partitions.get_first_partition_key() == key(30)
    assert partitions.get_last_partition_key() == key(0)
    start, end = time_series.whole_range(partitions)
    assert (start.isoformat(), (end - start).days) == (f"{key(30)}T00:00:00", 31)
