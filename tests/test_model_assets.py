"""The result tables: what a run of the models leaves in the warehouse and in the snapshot.

The statistics have their own tests; here it is asked whether the right rows reach them, and whether
what they found arrives.
"""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sb_pipelines import analyze, plots, tables
from sb_pipelines.analyze import Events
from sb_pipelines.definitions import build
from sb_pipelines.defs import (
    audit,
    baselines,
    clusters,
    dependencies,
    sets,
    trends,
)
from sb_pipelines.resources import set_watermark
from sb_serving import demo, sql, times
from sb_serving.events import Invocation
from sb_serving.settings import Settings
from sb_serving.stats import trend
from sb_serving.store import Store
from tests.builders import invocation
from tests.published_builder import NAIVE, NOW, at, refreshed


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 4,000 demo invocations of 40 days, and a warehouse of series and totals."""
    folder = tmp_path_factory.mktemp("models")
    plan = demo.DemoPlan(n=4_000, seed=3, end=NOW, days=40)
    refreshed(folder, demo.invocations(plan))
    return folder


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
    assert (mark["id"], mark["at"]) == (4_000, NAIVE)


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


# --- skill_community_baselines --------------------------------------------------------------------


def test_baselines_are_those_of_the_events_themselves(place: Path) -> None:
    with at(place).writing() as connection:
        found = baselines.update(connection, NAIVE)
    store = Events.from_store(place / "skills.db")
    whole = analyze.analyze("baselines", store, {"min_users": 5})["baselines"]
    expected = {row["skill_name"]: row for row in whole}
    stored = {row["skill_name"]: row for row in rows(place, "from skill_community_baselines")}
    assert stored == {row["skill_name"]: row for row in found.rows}
    assert stored.keys() == expected.keys()
    assert found.hidden == 0
    for name, row in stored.items():
        one = expected[name]
        assert (row["completion_rate_n"], row["total_users"]) == (one["n"], one["users"])
        assert row["global_completion_rate"] == pytest.approx(one["shrunk_rate"])
        assert row["completion_rate_low"] == pytest.approx(one["low"])
        assert row["effectiveness_percentile"] == pytest.approx(one["percentile"])
        assert row["skills"] == len(stored)
    assert passes(place, baselines.baselines_are_possible)


def test_a_baseline_counted_by_hand(tmp_path: Path) -> None:
    """Two days of 1, 3 and of 8 seconds: mean 4; as days, (4, 2 calls) and (8, 1 call)."""
    day = [invocation(i, invoked_at=f"2026-11-{20 + i // 3}T10:00:0{i}Z") for i in range(1, 4)]
    durations, phases = (1.0, 3.0, 8.0), ("setup", None, "setup")
    warehouse = refreshed(
        tmp_path,
        [
            *(
                dataclasses.replace(one, duration_seconds=seconds, workflow_phase=phase)
                for one, seconds, phase in zip(day, durations, phases, strict=True)
            ),
            invocation(9, outcome="rejected", duration_seconds=None),
        ],
    )
    with warehouse.writing() as connection:
        (row,) = baselines.update(connection, NAIVE).rows
    assert (row["total_users"], row["min_users"], row["skills"]) == (1, 1, 1)
    assert (row["total_invocations"], row["completion_rate_n"], row["raw_completion_rate"]) == (
        (4, 3, 1.0)
    )
    assert row["global_avg_duration_seconds"] == pytest.approx(4.0)
    assert (row["duration_n"], row["duration_days"]) == (3, 2)
    # Residuals of the daily sums 4 - 2 * 4 = -4 and 8 - 4 = 4: 32 * 2 / 1 / 9, t(1) = 12.706.
    assert row["duration_high"] == pytest.approx(4 + 12.7062047 * (64 / 9) ** 0.5)
    assert row["duration_low"] == 0.0
    assert row["most_common_workflow_phase"] == "setup"
    assert (row["phase_n"], row["phased"]) == (2, 2)


def test_a_skill_of_four_users_is_hidden_once_there_are_others(tmp_path: Path) -> None:
    """Nothing shown depends on it; a skill of five is shown."""

    def used(skill: str, users: int, first: int) -> list[Invocation]:
        return [invocation(first + i, skill_name=skill, user_id=f"{i:032x}") for i in range(users)]

    with refreshed(tmp_path, used("known", 5, 0) + used("secret", 4, 100)).writing() as connection:
        found = baselines.update(connection, NAIVE)
    assert [row["skill_name"] for row in found.rows] == ["known"]
    assert found.hidden == 1
    assert passes(tmp_path, baselines.baselines_are_possible)
    for statement in (
        "update skill_community_baselines set total_users = 4",
        "update skill_community_baselines set completion_rate_high = 0",
        "update skill_community_baselines set duration_n = 99",
        "delete from skill_community_baselines where true",
    ):
        assert not spoil(tmp_path, baselines.baselines_are_possible, statement), statement


# --- skill_dependencies ---------------------------------------------------------------------------


def test_dependencies_are_those_of_the_events_themselves(place: Path) -> None:
    found, _ = dependencies.update(at(place), NAIVE)
    store = Events.from_store(place / "skills.db")
    pairs = analyze.analyze("lift", store, {})["pairs"]
    assert len(found["skill_a"]) == len(pairs) > 50
    stored = rows(place, "from skill_dependencies")
    by_pair = {(row["skill_a"], row["skill_b"]): row for row in stored}
    for pair in pairs:
        row = by_pair[pair["a"], pair["b"]]
        assert (row["co_occurrence_count"], row["n_a"], row["n_b"], row["n_sessions"]) == (
            (pair["n_ab"], pair["n_a"], pair["n_b"], pair["n_sessions"])
        )
        assert row["lift_score"] == pytest.approx(pair["lift"])
        assert (row["lift_low"], row["lift_high"]) == pytest.approx(
            (pair["lift_low"], pair["lift_high"])
        )
        assert row["q_value"] == pytest.approx(pair["q_value"], rel=1e-6)
        assert row["significant"] == pair["significant"]
    assert {row["kind_a"] for row in stored} >= {"skill", "tool"}
    (mark,) = rows(place, "from watermarks where name = 'skill_dependencies'")
    assert (mark["id"], mark["at"]) == (4_000, NAIVE)
    assert passes(place, dependencies.dependencies_are_possible)
    for statement in (
        "update skill_dependencies set n_a = co_occurrence_count - 1",
        "update skill_dependencies set lift_score = lift_high * 2",
        "update skill_dependencies set order_share = 0.2 where order_share is not null",
        "delete from skill_dependencies where true",
    ):
        assert not spoil(place, dependencies.dependencies_are_possible, statement), statement


BATCHES = st.lists(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.sampled_from("stu"), st.integers(0, 5)), max_size=8
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=20, deadline=None)
@given(BATCHES)
def test_order_folded_in_batches_is_that_of_all_events(
    batches: list[list[tuple[str, str, int]]],
) -> None:
    """A late event can make another skill of its session the first one."""
    seen: list[tuple[str, str, int]] = []
    with duckdb.connect() as connection:
        connection.execute(sql.load("warehouse/schema.sql"))
        for batch in batches:
            for skill, session, minute in batch:
                seen.append((skill, session, minute))
                connection.execute(
                    "insert into events (id, skill_name, invoked_at, session_id, user_id, kind)"
                    " values (?, ?, timestamp '2026-11-20' + to_minutes(?), ?, '', 'skill')",
                    [len(seen), skill, minute, session],
                )
            set_watermark(connection, "events", len(seen), NAIVE)
            sets.fold_sets(connection)
            sets.fold_order(connection)
        (order,) = (grown for grown in audit.GROWN if grown.until == "order")
        assert not any(audit.differing(connection, order).values())
        found = {
            (a, b): tuple(order)
            for a, b, *order in connection.execute(
                "select a.skill_name, b.skill_name, n_a_first, n_b_first, n_tied from pair_order o"
                " join skill_key a on a.skill = o.a join skill_key b on b.skill = o.b"
            ).fetchall()
        }
        connection.execute("update session_first_use set first_at = '2020-01-01'")
        connection.execute("update pair_order set n_tied = n_tied + 1")
        assert audit.differing(connection, order) == {
            "session_first_use": len({(session, skill) for skill, session, _ in seen}),
            "pair_order": len(found),
        }
    first: dict[tuple[str, str], int] = {}
    for skill, session, minute in seen:
        first[session, skill] = min(minute, first.get((session, skill), minute))
    expected: dict[tuple[str, str], list[int]] = {}
    for session, a in first:
        for b in "abcd":
            if (session, b) not in first or (a, b) not in found:
                continue
            mine, its = first[session, a], first[session, b]
            expected.setdefault((a, b), [0, 0, 0])[0 if mine < its else 1 if mine > its else 2] += 1
    assert found == {pair: tuple(order) for pair, order in expected.items()}
    together = {frozenset((a, b)) for s, a in first for z, b in first if s == z and a != b}
    assert {frozenset(pair) for pair in found} == together


def test_which_comes_second_has_its_share_and_interval(tmp_path: Path) -> None:
    """Of ten sessions eight use `plan` first, one `write`, one both at once."""
    recorded = []
    for i in range(10):
        plan, write = (30, 0) if i == 8 else (0, 0 if i == 9 else 30)
        for number, (skill, second) in enumerate((("plan", plan), ("write", write))):
            recorded.append(
                invocation(
                    2 * i + number,
                    skill_name=skill,
                    session_id=f"s{i}",
                    invoked_at=f"2026-11-20T10:{i:02d}:{second:02d}Z",
                )
            )
    recorded += [invocation(100 + i, skill_name="other", session_id=f"o{i}") for i in range(10)]
    dependencies.update(refreshed(tmp_path, recorded), NAIVE)
    (row,) = rows(tmp_path, "from skill_dependencies")
    assert (row["skill_a"], row["skill_b"], row["then_skill"]) == ("plan", "write", "write")
    assert (row["order_n"], row["order_share"]) == (9, pytest.approx(8 / 9))
    assert row["order_p_value"] == pytest.approx(2 * (1 + 9) / 2**9)
    assert (row["lift_score"], row["relationship_type"]) == (2.0, "strong")
    assert row["confidence_ab"] == row["confidence_ba"] == 1.0
    assert row["confidence_ab_low"] == pytest.approx(10 / (10 + 1.959964**2))


# --- skill_clusters -------------------------------------------------------------------------------


def test_clusters_keep_their_ids_and_their_day(tmp_path: Path) -> None:
    """Two groups; a week later a third has come and the larger one has grown."""

    def sessions(names: str, count: int, first: int) -> list[Invocation]:
        made = []
        for i in range(count):
            left_out = i % len(names)
            for number, name in enumerate(names):
                if number != left_out:
                    key = first + i * len(names) + number
                    made.append(invocation(key, skill_name=name, session_id=f"{names}-{i}"))
        return made

    warehouse = refreshed(tmp_path, sessions("abcdef", 60, 0) + sessions("pqrst", 50, 1_000))
    found = clusters.update(warehouse, NAIVE)
    assert found is not None
    assert found.structure
    assert clusters.update(warehouse, NAIVE + timedelta(days=1)) is None
    before = {row["skill_name"]: row["cluster_id"] for row in rows(tmp_path, MEMBERS)}
    assert len({before[name] for name in "abcdef"}) == 1
    assert len({before[name] for name in "pqrst"}) == 1
    assert before["a"] != before["p"]
    refreshed(tmp_path, sessions("uvwxy", 60, 2_000) + sessions("pqrstz", 60, 3_000))
    clusters.update(warehouse, NAIVE + timedelta(days=7))
    after = {row["skill_name"]: row["cluster_id"] for row in rows(tmp_path, MEMBERS)}
    assert {after[name] for name in "abcdef"} == {before["a"]}
    assert {after[name] for name in "pqrstz"} == {before["p"]}
    assert after["u"] not in before.values()
    stored = {row["cluster_id"]: row for row in rows(tmp_path, "from skill_clusters")}
    assert stored[before["a"]]["created_at"] == NAIVE
    assert stored[after["u"]]["created_at"] == NAIVE + timedelta(days=7)
    row = stored[before["a"]]
    assert (row["k"], row["skills"], row["structure"], row["n_sessions"]) == (3, 6, True, 230)
    assert len(np.frombuffer(row["centroid"], "<f4")) == 3
    assert passes(tmp_path, clusters.clusters_are_possible)
    for statement in (
        "update skill_clusters set skills = skills + 1",
        "update skill_cluster_membership set membership_score = 2",
        f"delete from skill_clusters where cluster_id = {after['u']}",
        "update skill_clusters set cluster_name = 'one'",
    ):
        assert not spoil(tmp_path, clusters.clusters_are_possible, statement), statement
    with warehouse.writing() as connection:
        for table in clusters.TABLES:
            connection.execute(f"delete from {table} where cluster_id = {after['u']}")
        connection.execute("update watermarks set id = 0 where name = 'skill_clusters'")
    clusters.update(warehouse, NAIVE + timedelta(days=8))
    again = {row["skill_name"]: row["cluster_id"] for row in rows(tmp_path, MEMBERS)}
    assert again["a"] == before["a"]
    assert again["u"] > after["u"]  # the id of a group that was gone is not given again


MEMBERS = "select skill_name, cluster_id, membership_score from skill_cluster_membership"


def test_clusters_of_many_sessions_are_formed_on_a_part(place: Path) -> None:
    with at(place).reading() as connection:
        whole = clusters.read_sessions(connection, 10**9)
        part = clusters.read_sessions(connection, 50)
        again = clusters.read_sessions(connection, 50)
    assert len(np.unique(part.session)) <= 50 < len(np.unique(whole.session))
    assert (part.session == again.session).all()
    assert (part.n_sessions == whole.n_sessions).all()
    assert set(zip(part.session, part.skill, strict=True)) <= set(
        zip(whole.session, whole.skill, strict=True)
    )


def test_without_data_every_table_is_computed_and_empty(tmp_path: Path) -> None:
    warehouse = refreshed(tmp_path, [])
    assert trends.update(warehouse, NAIVE) == []
    with warehouse.writing() as connection:
        assert baselines.update(connection, NAIVE) == baselines.Updated([], 0)
    columns, expected = dependencies.update(warehouse, NAIVE)
    assert (len(columns["skill_a"]), expected) == (0, [])
    found = clusters.update(warehouse, NAIVE)
    assert found is not None
    assert found.clusters == ()
    for check in (
        trends.trends_are_possible,
        baselines.baselines_are_possible,
        dependencies.dependencies_are_possible,
        clusters.clusters_are_possible,
    ):
        assert passes(tmp_path, check)


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
