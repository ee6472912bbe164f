"""What is pruned changes no number over all time: stored, derived or served."""

from __future__ import annotations

import random
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from datetime import date, timedelta
from math import isclose
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner

from sb_pipelines import cli, pruning
from sb_pipelines.definitions import build
from sb_pipelines.defs import (
    audit,
    events,
    predictor_totals,
    publish,
    sets,
    time_series,
    write_back,
)
from sb_pipelines.refresh import refresh
from sb_pipelines.resources import SkillsDb, Snapshots, Warehouse
from sb_pipelines.training.recommend import count_uses
from sb_serving import times
from sb_serving.analytics import get_analyzer
from sb_serving.collaborative import get_collaborative_engine
from sb_serving.errors import SbError
from sb_serving.events import Invocation
from sb_serving.live import open_live
from sb_serving.settings import Settings
from sb_serving.store import Store, migrate
from tests.builders import SESSION_BUDDY_INSERT, invocation
from tests.warehouse_builder import NOWHERE

KEEP, SPAN, ROWS = 100, 125, 300
USERS = ["", "0" * 32, "1" * 32, "2" * 32]


def drawn(rows: int, days: float, first: int = 0, seed: int = 0) -> list[Invocation]:
    """Invocations of the last days; sessions go over midnight, some values are unknown."""
    draw = random.Random(seed)
    found = []
    for number in range(first, first + rows):
        outcome = draw.choice(["completed", "completed", "failed", "rejected", "no_result"])
        found.append(
            invocation(
                number,
                skill_name=f"skill-{draw.randrange(5)}",
                session_id=f"s{draw.randrange(rows // 4)}",
                user_id=draw.choice(USERS),
                invoked_at=times.to_utc_text(
                    times.now() - timedelta(days=draw.uniform(0.01, days))
                ),
                outcome=outcome,
                error_type="exit_1" if outcome == "failed" else None,
                duration_seconds=draw.choice([None, 0.05, 2.0, 400.0]),
                workflow_phase=draw.choice([None, "setup", "execution"]),
                agent=draw.choice([None, "claude-code"]),
                agent_version=draw.choice([None, "1.0", "2.0"]),
                model=draw.choice([None, "a", "b"]),
            )
        )
    return found


@pytest.fixture(scope="module")
def refreshed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with events of `SPAN` days, refreshed; the newest row is of today."""
    home = tmp_path_factory.mktemp("refreshed")
    config = Settings.load(home=home)
    with Store.open(config.skills_db, create=True) as store:
        store.bulk_import(drawn(ROWS, SPAN))
        long_ago = times.to_utc_text(times.now() - timedelta(days=110))
        for text in (long_ago, long_ago[:11] + "23:59:59.999999+00:00", "no time at all"):
            store.connection.execute(
                SESSION_BUDDY_INSERT, ("skill-0", text, "s1", 1, None, 3.0, "path")
            )
        store.record(invocation(9_999, invoked_at=times.to_utc_text(times.now())))
    catch_up(config)
    return home


def catch_up(config: Settings, *, full: bool = False) -> str:
    """What a refresh does to the tables that are looked at here; says why they were rebuilt."""
    skills, warehouse, snapshots = files(config)
    with warehouse.writing(create=True) as connection:
        rebuilt = events.load(connection, skills, full=full).rebuilt
        time_series.rebuild_hours(connection, NOWHERE, NOWHERE)
        time_series.fold_totals(connection)
        predictor_totals.fold_totals(connection)
        sets.fold_sets(connection)
        sets.fold_order(connection)
    publish.publish(warehouse, snapshots, NOWHERE, NOWHERE)
    with warehouse.writing() as connection, Store.open(config.skills_db) as store:
        write_back.write_back(connection, store, times.now())
    return rebuilt


@pytest.fixture
def config(refreshed: Path, sb_home: Path) -> Settings:
    sb_home.rmdir()
    shutil.copytree(refreshed, sb_home)
    return Settings.load(keep_events_days=KEEP)


def files(config: Settings) -> tuple[SkillsDb, Warehouse, Snapshots]:
    return (
        SkillsDb(path=str(config.skills_db)),
        Warehouse(database=str(config.warehouse)),
        Snapshots(folder=str(config.snapshots)),
    )


def before(config: Settings) -> date:
    return pruning.first_kept(config, times.now())


def prune(config: Settings) -> pruning.Pruned:
    return pruning.prune(*files(config), before(config))


STORE = (
    "select * from v_session_skill_summary order by 1",
    "select * from v_daily_skill_source order by 1, 2",
    "select * from v_skill_effectiveness_by_phase order by 1, 2",
    "select * from v_skills_by_phase_usage order by 1, 2",
    "select * from v_workflow_phase_patterns order by 1",
    "select * from v_top_skills order by 1",
    "select skill_name, total_invocations, completion_rate, avg_duration_seconds"
    " from v_realtime_skill_dashboard order by 1",
    "select * from skill_hour order by 2, 1",
    "select * from session_skills order by 1, 2",
    "select * from skill_time_series order by skill_name, timestamp",
)
NAMED = "join skill_key k on k.skill = t.skill"
PAIR = "join skill_key x on x.skill = t.a join skill_key y on y.skill = t.b"
WAREHOUSE = (
    "from skill_time_series order by hour, skill_name, kind",
    "from skill_totals order by skill_name, kind, workflow_phase, outcome",
    "from predictor_totals order by scope, key",
    f"select session_id, skill_name from session_skill t {NAMED}"
    " join session_key s on s.session = t.session order by 1, 2",
    f"select user_id, skill_name, decided from user_skill t {NAMED}"
    " join user_key u on u.user_number = t.user_number order by 1, 2, 3",
    f"select session_id, skill_name, first_at from session_first_use t {NAMED}"
    " join session_key s on s.session = t.session order by 1, 2",
    "select least(x.skill_name, y.skill_name), greatest(x.skill_name, y.skill_name), sum(n)"
    f" from pair_count t {PAIR} group by 1, 2 order by 1, 2",
    "select x.skill_name, y.skill_name, n_a_first, n_b_first, n_tied"
    f" from pair_order t {PAIR} where x.skill_name < y.skill_name order by 1, 2",
)


def stored(config: Settings) -> list[Any]:
    """What the store says over all time."""
    with closing(sqlite3.connect(config.skills_db)) as connection:
        return [connection.execute(query).fetchall() for query in STORE]


def derived(config: Settings) -> list[Any]:
    """What the warehouse says over all time."""
    with Warehouse(database=str(config.warehouse)).reading() as connection:
        found = [connection.execute(query).fetchall() for query in WAREHOUSE]
        uses = count_uses(connection, without="tool", pruned=True)
    return [*found, uses.skills, uses.completed.tolist(), uses.decided.tolist(), uses.latest]


def served(config: Settings) -> list[Any]:
    """What live answers over all time say, and hours of all days."""
    live = open_live(config.skills_db)
    totals = sorted(
        (key, total.n, total.duration_n, total.duration_sum, total.buckets)
        for key, total in live.tick().totals.items()
    )
    live.close()
    live.snapshots.close()
    profiles = get_collaborative_engine(config.skills_db)
    hours = get_analyzer(config.skills_db).aggregate_hourly_metrics("skill-1", 24 * (SPAN + 1))
    return [totals, [profiles.get_user_skill_profile(user) for user in USERS[1:]], hours]


def same(one: Any, other: Any) -> bool:
    """Equal, but for the last digits of sums in another order."""
    if isinstance(one, float) and isinstance(other, float):
        return isclose(one, other, rel_tol=1e-9)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def everything(config: Settings) -> list[Any]:
    return [stored(config), derived(config), served(config)]


def count(config: Settings, table: str = "skill_invocation") -> int:
    with closing(sqlite3.connect(config.skills_db)) as connection:
        return int(connection.execute(f"select count(*) from {table}").fetchone()[0])


def differing(config: Settings) -> int:
    with Warehouse(database=str(config.warehouse)).reading() as connection:
        return sum(audit.all_differing(connection).values())


# --- what stays -----------------------------------------------------------------------------------


def test_no_number_over_all_time_changes(config: Settings) -> None:
    """Right after pruning, after the next refresh, and rebuilt from nothing."""
    as_it_was = everything(config)
    rows = count(config)
    todo = pruning.prunable(*files(config), before(config))
    done = prune(config)
    assert (done.days, done.rows, done.waits) == (len(todo.days), todo.rows, "")
    assert done.through == todo.days[-1][0].isoformat()
    assert 20 < done.rows == rows - count(config)
    assert count(config, "skill_user_interactions") == count(config) - 1  # the unreadable time's
    assert same(everything(config), as_it_was)
    assert refresh(config).rebuilt == ""  # with all its checks
    assert same(everything(config), as_it_was)
    assert differing(config) == 0
    assert catch_up(config, full=True) == "it was asked for"
    assert same(everything(config), as_it_was)
    config.warehouse.unlink()
    catch_up(config)
    assert same(everything(config), as_it_was)
    assert differing(config) == 0


def test_live_totals_stay_without_any_snapshot(config: Settings) -> None:
    as_it_was = served(config)
    prune(config)
    shutil.rmtree(config.snapshots)
    assert same(served(config), as_it_was)


def test_news_after_pruning_are_counted_like_any(config: Settings) -> None:
    prune(config)
    with Store.open(config.skills_db) as store:
        assert store.bulk_import(drawn(60, 80, first=1_000, seed=1)).inserted == 60
    assert catch_up(config) == ""
    assert differing(config) == 0
    grown = everything(config)
    catch_up(config, full=True)
    assert same(everything(config), grown)


def test_a_second_run_prunes_nothing(config: Settings) -> None:
    done = prune(config)
    assert prune(config) == replace(done, days=0, rows=0)


def test_a_late_row_of_another_tool_is_pruned_with_the_next_run(config: Settings) -> None:
    """It inserts by itself, so nobody can refuse it; its hour was pruned with others in it."""
    prune(config)
    with closing(sqlite3.connect(config.skills_db)) as connection:
        (hour,) = connection.execute(
            "select hour from sb_pruned_hours where skill_name = 'skill-1' limit 1"
        ).fetchone()
        row = ("skill-1", f"{hour}:30:00.000000+00:00", "late", 1, None, 7.0, None)
        connection.execute(SESSION_BUDDY_INSERT, row)
        connection.execute(SESSION_BUDDY_INSERT, (*row[:1], times.now_text(), *row[2:]))
        connection.commit()
    assert prune(config).rows == 0, "it was neither counted nor published"
    assert catch_up(config) == ""
    as_it_was = everything(config)
    assert differing(config) == 0
    shutil.rmtree(config.snapshots)
    catch_up(config)
    assert prune(config).rows == 1
    assert same(everything(config), as_it_was)
    catch_up(config, full=True)
    assert same(everything(config), as_it_was)


def test_a_killed_run_leaves_each_day_whole_or_pruned(config: Settings) -> None:
    as_it_was = everything(config)
    rows = count(config)
    left = []
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(config.home)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "pruning\n"
        process.kill()
        process.communicate()
        left.append(count(config))
        with closing(sqlite3.connect(config.skills_db)) as connection:
            assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
        assert same(everything(config), as_it_was)
    assert rows > left[0] > left[1], "no run was killed halfway"
    prune(config)
    catch_up(config)
    assert same(everything(config), as_it_was)
    assert differing(config) == 0


KILLED = """
import sys
from pathlib import Path
from sb_serving.settings import Settings
from sb_serving.store import pruning as one_day
from tests.test_pruning import KEEP, prune
days, real = [], one_day.prune_day
def told(store, *rest):
    if len(days) == 3:
        # In the middle of the fourth day's transaction, after its rows are gone.
        store.connection.set_trace_callback(
            lambda text: print("pruning", flush=True) if "into sb_pruned_days" in text else None)
    days.append(rest[0])
    return real(store, *rest)
one_day.prune_day = told
prune(Settings.load(home=Path(sys.argv[1]), keep_events_days=KEEP))
"""


# --- what must not come back, and what must not go ------------------------------------------------


def test_what_was_pruned_does_not_come_back(config: Settings) -> None:
    """An import that is repeated, or a transcript that is read again."""
    done = prune(config)
    assert done.through is not None
    as_it_was = stored(config)
    again = drawn(ROWS, SPAN)
    with Store.open(config.skills_db) as store:
        old = [one for one in again if one.invoked_at[:10] <= done.through]
        result = store.import_batch(old[:10])
        assert (result.inserted, result.pruned) == (0, 10)
        result = store.bulk_import(old)
        assert (result.inserted, result.duplicates, result.pruned) == (0, 0, len(old))
        with pytest.raises(SbError, match=f"events up to {done.through} were pruned"):
            store.record(old[0])
    assert stored(config) == as_it_was


def test_it_is_off_by_default(config: Settings) -> None:
    off = Settings.load()
    assert off.keep_events_days == 0
    with pytest.raises(SbError, match="keep_events_days = 0"):
        pruning.first_kept(off, times.now())
    rows = count(config)
    with dg.DagsterInstance.ephemeral() as instance:
        job = build(off).resolve_job_def("housekeeping")
        assert job.execute_in_process(instance=instance).success
    assert count(config) == rows
    with closing(sqlite3.connect(config.skills_db)) as connection:
        assert not migrate.is_pruned(connection)


def test_fewer_days_than_the_models_read_are_refused() -> None:
    with pytest.raises(SbError, match="at least 90"):
        Settings.load(keep_events_days=30)


def test_the_job_prunes_what_the_setting_says(config: Settings) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        job = build(config).resolve_job_def("housekeeping")
        assert job.execute_in_process(instance=instance).success
    with closing(sqlite3.connect(config.skills_db)) as connection:
        (oldest,) = connection.execute(
            "select min(invoked_at) from skill_invocation where invoked_at < 'n'"
        ).fetchone()
    assert oldest[:10] >= before(config).isoformat()


def test_rows_that_are_not_published_wait(config: Settings) -> None:
    with Store.open(config.skills_db) as store:
        late = times.to_utc_text(times.now() - timedelta(days=120))
        store.import_batch([invocation(5_000, invoked_at=late)])
    catch_up(config)  # the older snapshot is still there and could be served
    done = prune(config)
    assert done.through is None or done.through < late[:10]
    assert f"rows of {late[:10]} are not yet counted everywhere" in done.waits


def test_the_newest_row_of_the_log_stays(config: Settings) -> None:
    """Its id is the watermark of everything."""
    late = times.to_utc_text(times.now() - timedelta(days=120))
    with Store.open(config.skills_db) as store:
        store.import_batch([invocation(5_000, invoked_at=late)])
    shutil.rmtree(config.snapshots)
    catch_up(config)
    done = prune(config)
    assert f"the newest row of the log is of {late[:10]}" in done.waits


def test_a_warehouse_of_another_store_prunes_nothing(config: Settings) -> None:
    rows = count(config)
    with closing(sqlite3.connect(config.skills_db)) as connection:
        connection.execute("update skill_invocation set skill_name = 'x' where id < 20")
        connection.commit()
    with pytest.raises(SbError, match="made from another event store"):
        prune(config)
    assert count(config) == rows


def test_a_store_from_before_the_pruning_is_read_anew(config: Settings) -> None:
    copy = config.home / "copy.db"
    with closing(sqlite3.connect(config.skills_db)) as one, closing(sqlite3.connect(copy)) as other:
        one.backup(other)
    as_it_was = everything(config)
    prune(config)
    copy.replace(config.skills_db)
    for suffix in ("-wal", "-shm"):
        Path(f"{config.skills_db}{suffix}").unlink(missing_ok=True)
    assert catch_up(config) == "days are back that had been pruned"
    assert same(everything(config), as_it_was)


# --- versions -------------------------------------------------------------------------------------


def test_a_pruned_file_goes_down_and_up_again(config: Settings) -> None:
    prune(config)
    as_it_was = stored(config)
    with closing(migrate.connections.connect(config.skills_db)) as connection:
        assert migrate.down(connection, config.skills_db) == ["V4__phase4_extensions"]
        views = [connection.execute(query).fetchall() for query in STORE[:6]]
        assert same(views, as_it_was[:6])
        migrate.up(connection, config.skills_db)
        # Companions are lost on the way down, so kept rows have lost kind and outcome; counts not.
        total = "completed + failed + rejected + cancelled + interrupted + no_result"
        hours = (
            f"select hour, skill_name, completed, {total}, duration_n from skill_hour order by 1, 2"
        )
        again = connection.execute(hours).fetchall()
        expected = [
            (h, s, done, done + sum(rest), n) for s, h, _, done, *rest, n, _ in as_it_was[7]
        ]
        assert again == expected
        migrate.down(connection, config.skills_db, steps=4)
        left = connection.execute("select name from sqlite_master where name like 'sb_%'")
        assert left.fetchall() == []


# --- what one sees --------------------------------------------------------------------------------


def test_the_command_and_status_say_what_goes_and_what_went(
    config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SB_KEEP_EVENTS_DAYS", str(KEEP))
    run = CliRunner().invoke
    todo = pruning.prunable(*files(config), before(config))
    shown = run(cli.sb, ["status"]).output
    assert f"events before {before(config)}, once published, which become totals:" in shown
    assert f"{todo.rows:,} rows of {len(todo.days):,} days, at most about" in shown
    rows = count(config)
    said = run(cli.sb, ["prune", "--dry-run"]).output
    assert said.startswith(f"{todo.rows:,} events of {len(todo.days):,} days before")
    assert count(config) == rows
    assert "Totals, hours, sessions" in run(cli.sb, ["prune"]).output
    assert f"pruned       {todo.rows:,} invocations up to " in run(cli.sb, ["status"]).output
    assert run(cli.sb, ["prune"]).output.startswith("0 events of 0 days before")
    answer = run(cli.sb, ["analyze", "trends", "--db", str(config.skills_db)])
    assert "were pruned; only later ones count" in answer.stderr
