"""The result tables: what a run of the models leaves in the warehouse and in the snapshot.

The statistics have their own tests; here it is asked whether the right rows reach them, and whether
what they found arrives.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from sb_pipelines import analyze, plots, tables
from sb_pipelines.analyze import Events
from sb_pipelines.definitions import build
from sb_pipelines.defs import events, time_series, trends
from sb_pipelines.resources import SkillsDb, Warehouse
from sb_serving import demo, times
from sb_serving.settings import Settings
from sb_serving.stats import trend
from sb_serving.store import Store

NOW = datetime(2026, 11, 22, 15, 20, tzinfo=UTC)
NAIVE = NOW.replace(tzinfo=None)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 6,000 demo invocations of 60 days, and a warehouse of series and totals."""
    folder = tmp_path_factory.mktemp("models")
    plan = demo.DemoPlan(n=6_000, seed=3, end=NOW, days=60)
    with Store.open(folder / "skills.db", create=True) as store:
        store.bulk_import(demo.invocations(plan))
    warehouse = at(folder)
    with warehouse.writing(create=True) as connection:
        events.load(connection, SkillsDb(path=str(folder / "skills.db")))
        time_series.rebuild_days(connection, datetime(2020, 1, 1), datetime(2020, 1, 1))
        time_series.fold_totals(connection)
    return folder


def at(folder: Path) -> Warehouse:
    return Warehouse(database=str(folder / "warehouse.duckdb"))


def rows(folder: Path, query: str) -> list[dict[str, Any]]:
    with at(folder).reading() as connection:
        found = connection.execute(query)
        names = [column[0] for column in found.description or ()]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def spoil(folder: Path, check: dg.AssetChecksDefinition, statement: str) -> bool:
    """Whether a check passes on a warehouse that a statement has spoilt; it is mended after."""
    table = statement.split()[2 if statement.startswith("delete") else 1]
    with at(folder).writing() as connection:
        connection.execute(f"create table saved as from {table}")
        connection.execute(statement)
    passed = passes(folder, check)
    with at(folder).writing() as connection:
        connection.execute(f"delete from {table}")
        connection.execute(f"insert into {table} from saved")
        connection.execute("drop table saved")
    return passed


def passes(folder: Path, check: dg.AssetChecksDefinition) -> bool:
    result = check(warehouse=at(folder))
    assert isinstance(result, dg.AssetCheckResult)
    return result.passed


# --- skill_trends ---------------------------------------------------------------------------------


def test_trends_are_those_of_the_events_themselves(place: Path) -> None:
    """`sb analyze` counts days from single events, the asset from the hours of the series."""
    found = trends.update(at(place), NAIVE)
    store = Events.from_store(place / "skills.db")
    by_key = {(one.metric, one.days, one.skill_name): one for one in found}
    assert len(by_key) == len(found)
    for metric in trend.METRICS:
        arguments = {"end": times.to_utc_text(NOW), "days": [7, 30], "metric": metric}
        for row in analyze.analyze("trends", store, arguments)["trends"]:
            one = by_key[metric, row["days"], row["skill_name"]]
            assert (one.trend, one.n) == (row["trend"], row["n"])
            # The share of today that has passed is known to the hour only.
            for name in ("p_value", "start_value", "end_value"):
                mine = getattr(one, name)
                assert (mine is None) == (row[name] is None)
                assert (mine or 0.0) == pytest.approx(row[name] or 0.0, rel=5e-2, abs=1e-9)


def test_the_table_holds_what_was_found_and_when(place: Path) -> None:
    found = trends.update(at(place), NAIVE)
    again = trends.update(at(place), NAIVE)
    assert again == found
    stored = rows(place, "from skill_trends")
    assert len(stored) == len(found) == 12 * len({one.skill_name for one in found})
    one = next(one for one in found if one.p_value is not None)
    (row,) = [
        row
        for row in stored
        if (row["skill_name"], row["metric"], row["days"]) == (one.skill_name, one.metric, one.days)
    ]
    for name in ("trend", "n", "slope_per_day", "slope_low", "end_high", "p_value", "q_value"):
        assert row[name] == getattr(one, name)
    assert row["window_end"] == NAIVE
    assert {row["kind"] for row in stored} >= {"skill", "tool", "mcp_tool"}
    (mark,) = rows(place, "from watermarks where name = 'skill_trends'")
    assert (mark["id"], mark["at"]) == (6_000, NAIVE)


def test_the_check_of_trends_finds_what_cannot_be(place: Path) -> None:
    trends.update(at(place), NAIVE)
    check = trends.trends_are_possible
    assert passes(place, check)
    for statement in (
        "update skill_trends set p_value = q_value * 2 where p_value > 0",
        "update skill_trends set slope_low = slope_per_day + 1 where p_value is not null",
        "update skill_trends set end_high = 1.5 where metric = 'completion_rate'",
        "update skill_trends set reason = null where trend = 'insufficient_data'",
        "delete from skill_trends where skill_name = 'lint-and-fix'",
        "delete from skill_trends where days = 7",
    ):
        assert not spoil(place, check, statement), statement
    assert passes(place, check)


# --- tables and plots -----------------------------------------------------------------------------


def test_rows_of_any_type_are_put_in_place_of_the_old_ones(place: Path) -> None:
    many = [
        {"a": f"name {i}", "b": None if i % 3 else i / 7, "c": i, "d": i % 2 == 0, "e": None}
        for i in range(3_000)
    ]
    one: dict[str, Any] = {"a": None, "b": 0.5, "c": None, "d": None, "e": NAIVE}
    with at(place).writing() as connection:
        connection.execute(
            "create table mixed (a VARCHAR, b DOUBLE, c BIGINT, d BOOLEAN, e TIMESTAMP)"
        )
        assert tables.replace(connection, "mixed", [one]) == 1
        assert connection.execute("from mixed").fetchall() == [(None, 0.5, None, None, NAIVE)]
        assert tables.replace(connection, "mixed", many) == 3_000
        assert connection.execute("from mixed order by c").fetchall() == [
            tuple(row.values()) for row in many
        ]
        assert tables.replace(connection, "mixed", []) == 0
        assert connection.execute("from mixed").fetchall() == []
        with pytest.raises(ValueError, match="mixed has no column f"):
            tables.replace(connection, "mixed", [one | {"f": 1}])
        with pytest.raises(KeyError):
            tables.replace(connection, "mixed", [{"a": "x"}])
        connection.execute("drop table mixed")


def test_plots_are_lines_of_text() -> None:
    assert plots.columns([0, 1, 350, 700]) == " ▂▅█"
    assert plots.bars([("a", 5.0, "x"), ("bb", 10.0, "y")], 10.0).splitlines()[1:3] == [
        f"a   {'█' * 15:30}  x",
        f"bb  {'█' * 30}  y",
    ]
    line = plots.ranges([("a", -1.0, 0.0, 1.0, "x")], -2.0, 2.0).splitlines()[1]
    assert line.index("─") < line.index("●") < line.rindex("─")
    assert plots.ranges([], 0.0, 1.0) == plots.bars([], 1.0) == "nothing to show yet"


# --- the job --------------------------------------------------------------------------------------


def test_refresh_with_models_publishes_them(sb_home: Path) -> None:
    """Until then the table is published empty, and nothing says that it was computed."""
    from sb_pipelines.refresh import refresh
    from sb_serving.snapshot import SnapshotHolder

    config = Settings.load(partitions_start=(times.now() - timedelta(days=30)).date().isoformat())
    with Store.open(config.skills_db, create=True) as store:
        store.bulk_import(demo.invocations(demo.DemoPlan(n=800, seed=1, end=times.now(), days=20)))

    def published() -> tuple[int, list[str]]:
        holder = SnapshotHolder(config.snapshots)
        with holder.pin() as snapshot:
            assert snapshot is not None
            ((n,),) = snapshot.query("select count(*) from skill_trends")
            names = [name for (name,) in snapshot.query("select name from watermarks order by 1")]
        holder.close()
        return n, names

    assert refresh(config).snapshot_number == 1
    assert "skill_trends" not in published()[1]
    assert refresh(config, models=True).snapshot_number == 3
    n, names = published()
    assert n > 0
    assert "skill_trends" in names


def test_the_models_wait_for_the_first_refresh_and_then_run_once(sb_home: Path) -> None:
    built = build(Settings.load())
    with dg.DagsterInstance.ephemeral() as instance:
        sensor = built.resolve_sensor_def("first_models")
        schedule = built.resolve_schedule_def("hourly_models")

        def tick(cursor: str | None) -> Any:
            return sensor.evaluate_tick(
                dg.build_sensor_context(
                    instance=instance,
                    cursor=cursor,
                    repository_def=built.get_repository_def(),
                    resources={"snapshots": built.resources["snapshots"]},
                )
            )

        def hour() -> Any:
            return schedule.evaluate_tick(
                dg.build_schedule_context(
                    instance=instance,
                    repository_def=built.get_repository_def(),
                    resources={"snapshots": built.resources["snapshots"]},
                )
            )

        assert tick(None).skip_message == hour().skip_message == "nothing was published yet"
        (sb_home / "snapshots").mkdir()
        (sb_home / "snapshots" / "000001.duckdb").touch()
        (request,) = tick(None).run_requests
        assert (request.run_key, tick(None).cursor) == ("first", "asked")
        assert tick("asked").run_requests == []
        assert len(hour().run_requests) == 1
