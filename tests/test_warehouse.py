"""The warehouse: how it is opened, and that its tables equal a recount whatever happened before."""

from __future__ import annotations

import logging
import random
import shutil
import sqlite3
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from sb_pipelines.defs import audit, events, predictor_totals, sets, time_series
from sb_pipelines.resources import (
    WAREHOUSE_VERSION,
    DamagedWarehouse,
    SkillsDb,
    Warehouse,
    empty,
    set_watermark,
    watermark,
)
from sb_serving import sql, times
from sb_serving.errors import SbError
from sb_serving.events import DURATION_BUCKETS, Invocation
from sb_serving.store import Store, migrate, restore
from sb_serving.store import connection as connections
from tests.builders import SESSION_BUDDY_INSERT, invocation
from tests.warehouse_builder import NOWHERE, Place, make_empty_store

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_empty_store(tmp_path_factory.mktemp("empty"))


@pytest.fixture
def place(tmp_path: Path, empty_store: Path) -> Place:
    return Place(tmp_path, empty_store)


def at(hours: float = 0.0) -> str:
    return times.to_utc_text(NOON + timedelta(hours=hours))


# --- what the tables hold -------------------------------------------------------------------------

# Around three midnights, a day in 1970 and one in the far future.
HOURS = [-60.0, -12.01, -11.99, 0.0, 0.5, 11.99, 12.01, 40.0, -498_000.0, 2e5]
DRAWN = st.fixed_dictionaries(
    {
        "skill": st.sampled_from(["commit", "Read", "agent:plan"]),
        "hours": st.sampled_from(HOURS),
        "outcome": st.sampled_from(["completed", "failed", "rejected", "no_result"]),
        "duration": st.one_of(st.none(), st.sampled_from([0.0, 0.1, 0.25, 2.0, 45.5, 400.0])),
        "session": st.sampled_from(["s1", "s2", "s3"]),
        "user": st.sampled_from(["", "0" * 32, "1" * 32]),
        "phase": st.sampled_from([None, "setup", "execution"]),
        "twice": st.booleans(),
    }
)
STEPS = st.lists(
    st.one_of(
        st.lists(DRAWN, min_size=1, max_size=6),
        st.sampled_from(["load", "rebuild", "backfill", "fold", "sets", "predictor"]),
    ),
    max_size=10,
)


@settings(max_examples=25, deadline=None, phases=[Phase.generate])
@given(steps=STEPS)
def test_tables_equal_a_recount_whatever_ran_before(
    steps: list[Any], tmp_path_factory: pytest.TempPathFactory, empty_store: Path
) -> None:
    """Late rows, copies, rows of 1970 and of the future, in any order of the assets' runs."""
    place = Place(tmp_path_factory.mktemp("any"), empty_store)
    recorded: list[Invocation] = []
    with (
        duckdb.connect() as connection,
        Store.open(place.db) as store,
    ):
        connection.execute("set TimeZone = 'UTC'")
        empty(connection)
        runs: dict[str, Callable[[], object]] = {
            "load": lambda: events.load(connection, place.skills),
            "rebuild": lambda: time_series.rebuild_hours(connection, NOWHERE, NOWHERE),
            "backfill": lambda: time_series.rebuild_hours(
                connection, datetime(2026, 11, 18), datetime(2026, 11, 22)
            ),
            "fold": lambda: time_series.fold_totals(connection),
            "sets": lambda: sets.fold_sets(connection),
            "predictor": lambda: predictor_totals.fold_totals(connection),
        }
        for step in [*steps, "load", "rebuild", "fold", "sets", "predictor"]:
            if isinstance(step, str):
                runs[step]()
                continue
            drawn = [made(len(recorded) + number, row) for number, row in enumerate(step)]
            recorded += drawn
            copies = [row for row, how in zip(drawn, step, strict=True) if how["twice"]]
            assert store.import_batch([*drawn, *copies]).refused == ()
        assert {*audit.all_differing(connection).values()} == {0}
        series = connection.execute(
            "select skill_name, hour, kind, n, completed, failed, rejected, no_result, duration_n,"
            " round(duration_sum, 9), round(duration_p50, 9), round(duration_p95, 9),"
            " unique_sessions, unique_users, round(completion_rate, 9) from skill_time_series"
        ).fetchall()
        totals = connection.execute(
            "select * exclude (duration_sum, last_invoked_at) from skill_totals"
        ).fetchall()
    assert sorted(series, key=str) == sorted(counted_hours(recorded), key=str)
    assert sorted(totals) == sorted(counted_totals(recorded))


def made(number: int, row: dict[str, Any]) -> Invocation:
    return invocation(
        number,
        skill_name=row["skill"],
        kind={"commit": "skill", "Read": "tool", "agent:plan": "subagent"}[row["skill"]],
        invoked_at=at(row["hours"]),
        outcome=row["outcome"],
        duration_seconds=row["duration"],
        session_id=row["session"],
        user_id=row["user"],
        workflow_phase=row["phase"],
    )


def counted_hours(recorded: list[Invocation]) -> Iterator[tuple[Any, ...]]:
    """The series, by another way."""
    groups: dict[tuple[Any, ...], list[Invocation]] = defaultdict(list)
    for row in recorded:
        hour = times.from_text(row.invoked_at).replace(
            minute=0, second=0, microsecond=0, tzinfo=None
        )
        groups[row.skill_name, hour, row.kind].append(row)
    for key, rows in groups.items():
        outcomes = [row.outcome for row in rows]
        durations = [row.duration_seconds for row in rows if row.duration_seconds is not None]
        completed, failed = outcomes.count("completed"), outcomes.count("failed")
        quantiles = np.quantile(durations or [np.nan], [0.5, 0.95]).round(9).tolist()
        yield (
            *key,
            len(rows),
            completed,
            failed,
            outcomes.count("rejected"),
            outcomes.count("no_result"),
            len(durations),
            round(sum(durations), 9),
            *(quantiles if durations else [None, None]),
            len({row.session_id for row in rows}),
            len({row.user_id for row in rows} - {""}),
            round(completed / (completed + failed), 9) if completed + failed else None,
        )


def counted_totals(recorded: list[Invocation]) -> Iterator[tuple[Any, ...]]:
    """The totals, by another way."""
    groups: dict[tuple[str, ...], list[float | None]] = defaultdict(list)
    for row in recorded:
        key = (row.skill_name, row.kind, row.workflow_phase or "unknown", row.outcome)
        groups[key].append(row.duration_seconds)
    for key, durations in groups.items():
        known = [value for value in durations if value is not None]
        buckets = [sum(value <= bound for value in known) for bound in DURATION_BUCKETS]
        yield (*key, len(durations), len(known), *buckets)


def test_late_events_repair_their_day(place: Place) -> None:
    """A row of last week arrives today; today's run rebuilds last week's day and no other."""
    place.add(invocation(1, invoked_at=at(-72)), invocation(2, invoked_at=at()))
    place.refresh()
    place.add(invocation(3, invoked_at=at(-72)))
    place.load()
    rebuilt = place.rebuild(datetime(2026, 11, 20), datetime(2026, 11, 21))
    assert sorted(rebuilt.rows) == [datetime(2026, 11, 17), datetime(2026, 11, 20)]
    assert place.rows("select hour, n from skill_time_series order by hour") == [
        (datetime(2026, 11, 17, 12), 2),
        (datetime(2026, 11, 20, 12), 1),
    ]


def test_companions_that_came_back_are_noticed(place: Place) -> None:
    """A way down to V3 and up again from a backup changes what old rows mean."""
    place.add(invocation(1, kind="tool", skill_name="Read"))
    place.refresh()
    with closing(connections.connect(place.db)) as connection:
        backup = migrate.backup(connection, place.db)
        migrate.down(connection, place.db)
        migrate.up(connection, place.db)
        assert place.load().rebuilt.startswith("it was migrated at ")
        assert place.rows("select kind from events") == [("skill",)]
        restore.companions(connection, place.db, backup)
    assert place.load().rebuilt.startswith("it was migrated at ")
    assert place.rows("select kind from events") == [("tool",)]
    assert place.load().rebuilt == ""


def test_nothing_new_rebuilds_nothing(place: Place) -> None:
    place.add(invocation(1))
    place.refresh()
    assert place.load().new_rows == 0
    assert place.rebuild().rows == {}
    assert place.differing() == 0


def test_a_backfill_mends_rows_that_were_lost(place: Place) -> None:
    """No new events, but the series of a day is gone: asking for the day computes it again."""
    place.add(invocation(1, invoked_at=at()))
    place.refresh()
    with place.warehouse.writing() as connection:
        connection.execute("delete from skill_time_series")
    rebuilt = place.rebuild(datetime(2026, 11, 1), datetime(2026, 12, 1))
    assert list(rebuilt.rows.values()) == [1]
    assert place.differing() == 0


def test_chunks_change_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded by batches of ids and chunks of days; their size is not in the result."""
    monkeypatch.setattr(events, "BATCH_ROWS", 7)
    monkeypatch.setattr(time_series, "CHUNK_ROWS", 3)
    place.add(*(invocation(n, invoked_at=at(-7.0 * n), session_id=f"s{n % 5}") for n in range(40)))
    place.refresh()
    monkeypatch.undo()
    assert place.differing() == 0
    assert place.rows("select count(*), sum(n) from skill_time_series") == [(40, 40)]


READABLE = {
    "2026-11-20T12:00:00.000000+00:00": "2026-11-20 12:00:00",
    "2026-11-20T12:00:00": "2026-11-20 12:00:00",
    "2026-11-20 12:00:00.5": "2026-11-20 12:00:00.5",
    "2026-11-20T12:00:00Z": "2026-11-20 12:00:00",
    "2026-11-20T12:00:00+02:00": "2026-11-20 10:00:00",
    "2026-11-20T23:00:00.000000-05:30": "2026-11-21 04:30:00",
    "1970-01-01T00:00:00+00:00": "1970-01-01 00:00:00",
    "2224-01-01T00:00:00+00:00": "2224-01-01 00:00:00",
    "0001-01-01T00:00:00Z": "0001-01-01 00:00:00",
    "9999-12-30T23:59:59Z": "9999-12-30 23:59:59",
}
UNREADABLE = [
    *("", "soon", "1700000000", "infinity", "-infinity", "epoch"),
    *("2026-13-01", "2026-02-30T10:00:00", "290000-01-01"),
    *("9999-12-31T23:59:59Z", "0001-01-01T00:00:00+05:00"),
]


def test_a_time_is_read_as_utc(place: Place) -> None:
    """A plain cast would drop the offset without a word, and put the row into the wrong hour."""
    place.add_raw(*(("commit", text, "s", 1, None, None, None) for text in READABLE))
    place.refresh()
    moments = place.rows("select cast(invoked_at as varchar) from events order by id")
    assert dict(zip(READABLE, (moment for (moment,) in moments), strict=True)) == READABLE
    assert place.differing() == 0


def test_an_unreadable_time_is_kept_and_counted_apart(place: Place) -> None:
    place.add_raw(*(("commit", text, "s", 1, None, None, None) for text in [*UNREADABLE, at()]))
    place.refresh()
    assert place.rows("select invoked_at, skill_name from invalid_events order by id") == [
        (text, "commit") for text in UNREADABLE
    ]
    assert place.rows("select id from events") == [(len(UNREADABLE) + 1,)]
    assert place.rows("select sum(n) from skill_totals") == [(1,)]
    assert place.load().rebuilt == ""


def odd_time(draw: random.Random) -> str:
    """A time as some tool may write it, or something near one."""
    days = ["2026-11-20", "2024-02-29", "2023-02-29", "2026-13-01", "2026-04-31", "2026-11-2"]
    day = draw.choice([*days, "0000-01-01", "0001-01-01", "9999-12-30", "9999-12-31"])
    if draw.random() < 0.1:
        return day
    text = (
        day + draw.choice(["T", "T", " ", "t", "  "]) + draw.choice(["10", "23", "00", "24", "7"])
    )
    text += ":" + draw.choice(["00", "59", "59", "60", "5"])
    if draw.random() < 0.8:
        text += ":" + draw.choice(["00", "59", "60"])
        text += draw.choice(["", ".5", ".999999", ".9999999", ".000000", ".999600", ".", ".1e5"])
    text += draw.choice(
        ["", "Z", "z", "+00:00", "+02:00", "-05:30", "+15:00", "+0200", " +02:00", " "]
    )
    if draw.random() < 0.1:
        place = draw.randrange(len(text))
        text = text[:place] + draw.choice("x 1:-+.TZ") + text[place + 1 :]
    return text


def test_the_hours_of_the_store_are_those_of_the_warehouse(place: Place) -> None:
    """Two engines read the same odd text: each row counts in both, in one hour, or in neither."""
    draw = random.Random(5)
    durations = [None, 0.0, 1.5, 315_360_000.0, 315_360_001.0, -1.0, 9e999, "soon"]
    rows = [
        (f"s{draw.randrange(3)}", odd_time(draw), "s", draw.choice([0, 1]), None, seconds, None)
        for seconds in durations
        for _ in range(250)
    ]
    place.add_raw(*rows)
    place.refresh()
    warehouse = place.rows(
        "select skill_name, strftime(hour, '%Y-%m-%dT%H'), completed, no_result, duration_n,"
        " duration_sum from skill_time_series order by 1, 2"
    )
    hours = (
        "select skill_name, hour, completed, no_result, duration_n, duration_sum from skill_hour"
        " order by 1, 2"
    )
    assert sum(row[2] + row[3] for row in warehouse) > 100
    assert place.stored(hours) == warehouse
    with closing(sqlite3.connect(place.db)) as connection:
        connection.executescript(sql.load("store/count_hours_anew.sql"))
        assert connection.execute(hours).fetchall() == warehouse


def test_rows_without_companion_follow_the_readers_rules(place: Place) -> None:
    place.add_raw(
        ("a", "2026-11-20T12:00:00", "s", 1, None, 2.5, None),
        ("b", "2026-11-20T12:00:00", "s", 0, "exit_1", None, None),
        ("c", "2026-11-20T12:00:00", "s", 0, "", -1.0, None),
        ("d", "2026-11-20T12:00:00", "s", 0, None, 9e999, None),
    )
    place.load()
    columns = "skill_name, kind, source, user_id, outcome, duration_seconds, ended_at - invoked_at"
    assert place.rows(f"select {columns} from events order by id") == [
        ("a", "skill", "session_buddy", "", "completed", 2.5, timedelta(seconds=2.5)),
        ("b", "skill", "session_buddy", "", "failed", None, timedelta(0)),
        ("c", "skill", "session_buddy", "", "no_result", None, timedelta(0)),
        ("d", "skill", "session_buddy", "", "no_result", None, timedelta(0)),
    ]


def test_what_is_unknown_is_null(place: Place) -> None:
    """The Arrow stream knows no NULL; the warehouse must not count '' as a phase or -1 as calls."""
    place.add(
        invocation(1, duration_seconds=None, user_id=""),
        invocation(
            2,
            workflow_phase="setup",
            error_type="exit_1",
            outcome="failed",
            project_id="a" * 32,
            agent="claude-code",
            agent_version="2.0",
            model="m",
            trigger="user",
            duration_source="span",
            tool_calls=3,
            tool_failures=0,
        ),
    )
    place.load()
    columns = (
        "workflow_phase, error_type, project_id, agent, agent_version, model, trigger,"
        " duration_source, tool_calls, tool_failures, duration_seconds, user_id"
    )
    assert place.rows(f"select {columns} from events order by id") == [
        (*[None] * 11, ""),
        (
            *("setup", "exit_1", "a" * 32, "claude-code", "2.0", "m", "user", "span"),
            *(3, 0, 1.5, "0" * 32),
        ),
    ]


def test_a_column_that_is_empty_for_the_first_batch_is_read(place: Place) -> None:
    """The Arrow driver guesses a column's type from its first 65,536 rows; a store that grew under
    Session-Buddy alone for that long has no companion values in them.
    """  # noqa: D205
    rows = 65_536
    with sqlite3.connect(place.db) as connection:
        connection.execute("drop trigger trg_skill_metrics_after_insert")
        connection.execute("drop trigger trg_session_skills_after_insert")
        connection.execute("drop trigger trg_metrics_cache_after_insert")
        connection.execute("drop trigger trg_skill_hour_after_insert")
        connection.execute(
            "insert into skill_invocation (skill_name, invoked_at, session_id, completed)"
            " with recursive n(i) as (select 1 union all select i + 1 from n where i < ?)"
            " select 'commit', '2026-11-20T12:00:00', 's', 1 from n",
            [rows],
        )
        connection.execute(
            "insert into skill_invocation (skill_name, invoked_at, session_id, completed,"
            " duration_seconds, error_type, workflow_phase)"
            " values ('commit', '2026-11-20T13:00:00', 's', 0, 1.5, 'exit_1', 'setup')"
        )
    connection.close()
    place.load()
    assert place.rows(
        "select id, duration_seconds, error_type, workflow_phase from events"
        " where workflow_phase is not null"
    ) == [(rows + 1, 1.5, "exit_1", "setup")]


# --- another store under the same name ------------------------------------------------------------


def test_a_shorter_store_rebuilds_everything(
    place: Place, empty_store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place.add(*(invocation(n) for n in range(5)))
    place.refresh()
    replace_store(place, empty_store, [invocation(1, skill_name="other")])
    loaded = place.load()
    assert loaded.rebuilt == "it ends at id 1, the warehouse at 5"
    assert "another event store" in caplog.text
    place.refresh()
    assert place.rows("select skill_name, sum(n) from skill_totals group by 1") == [("other", 1)]
    assert place.differing() == 0


def test_a_store_with_other_rows_rebuilds_everything(place: Place, empty_store: Path) -> None:
    """Same length, same skills and sessions: only the times tell that it is another one."""
    place.add(*(invocation(n) for n in range(5)))
    place.refresh()
    replace_store(place, empty_store, [invocation(n, invoked_at=at(n)) for n in range(6)])
    assert place.load().rebuilt == "2 of its rows 1 to 2 differ from those read earlier"
    place.refresh()
    assert place.rows("select count(*), min(invoked_at) from events") == [
        (6, NOON.replace(tzinfo=None))
    ]
    assert place.differing() == 0


def test_gaps_between_ids_are_nothing_new(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that lost its oldest rows before it was first read, and batches without any row."""
    place.add(*(invocation(n) for n in range(400)))
    with sqlite3.connect(place.db) as connection:
        connection.execute("delete from skill_invocation where id <= 300 and id <> 150")
    connection.close()
    monkeypatch.setattr(events, "BATCH_ROWS", 20)
    assert place.load().new_rows == 101
    again = place.load()
    assert (again.rebuilt, again.new_rows) == ("", 0)


def test_deleted_rows_rebuild_everything(place: Place) -> None:
    """The log is insert-only by contract; another tool may not know that."""
    place.add(*(invocation(n) for n in range(300)))
    place.refresh()
    with sqlite3.connect(place.db) as connection:
        connection.execute("delete from skill_invocation where id = 100")
    connection.close()
    assert place.load().rebuilt == "it holds 299 rows up to id 300, the warehouse 300"
    place.refresh()
    assert place.rows("select sum(n) from skill_totals") == [(299,)]


def replace_store(place: Place, empty_store: Path, rows: list[Invocation]) -> None:
    for path in place.db.parent.glob("skills.db*"):
        path.unlink()
    shutil.copyfile(empty_store, place.db)
    place.add(*rows)


def test_a_load_that_breaks_leaves_the_warehouse_as_it_was(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows and watermark are one transaction, also when the third batch of a rebuild fails."""
    place.add(*(invocation(n) for n in range(5)))
    place.refresh()
    before = place.rows("from events order by id"), place.rows("from watermarks order by name")
    place.add(*(invocation(n) for n in range(5, 30)))
    monkeypatch.setattr(events, "BATCH_ROWS", 10)
    arrow = SkillsDb.arrow

    @contextmanager
    def breaking(self: SkillsDb, after: int, until: int) -> Iterator[Any]:
        if after >= 15:
            raise OSError("disk error")
        with arrow(self, after, until) as handle:
            yield handle

    monkeypatch.setattr(SkillsDb, "arrow", breaking)
    with pytest.raises(OSError, match="disk error"):
        place.load()
    monkeypatch.undo()
    after = place.rows("from events order by id"), place.rows("from watermarks order by name")
    assert after == before
    place.refresh()
    assert place.rows("select count(*), count(distinct id) from events") == [(30, 30)]


def test_an_empty_store_makes_empty_tables(place: Place) -> None:
    place.refresh()
    assert place.rows("select name, id from watermarks order by name") == [
        ("events", 0),
        ("predictor_totals", 0),
        ("series", 0),
        ("sets", 0),
        ("totals", 0),
    ]
    assert place.rows("from skill_totals") == place.rows("from skill_time_series") == []


def test_a_missing_store_says_so(place: Place) -> None:
    place.db.unlink()
    with pytest.raises(SbError, match=r"there is no database at .*skills\.db"):
        place.load()
    assert not place.skills.exists()


def test_a_file_without_the_log_says_so(place: Place) -> None:
    place.db.unlink()
    sqlite3.connect(place.db).close()
    with pytest.raises(SbError, match=r"is not an event store of .*sb migrate up"):
        place.load()


def test_a_store_of_an_older_version_says_so(place: Place) -> None:
    """Session-Buddy's own V3 file: the log is there, its companion is not."""
    with sqlite3.connect(place.db) as connection:
        connection.execute("drop table skill_user_interactions")
        connection.execute("insert into skill_metrics (skill_name) values ('commit')")
        for (trigger,) in connection.execute(
            "select name from sqlite_master where type = 'trigger'"
        ).fetchall():
            connection.execute(f"drop trigger {trigger}")
        connection.execute(SESSION_BUDDY_INSERT, ("commit", at(), "s", 1, None, None, None))
    connection.close()
    with pytest.raises(SbError, match=r"no such table: skill_user_interactions.*sb migrate up"):
        place.load()


# --- the file -------------------------------------------------------------------------------------

HOLDER = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1])
print("open", flush=True)
sys.stdin.readline()
connection.close()
print("closed", flush=True)
sys.stdin.readline()
"""


@contextmanager
def another_process(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A program that has the file open for writing until it reads a line."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_file_in_use_is_waited_for_and_named(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.load()
    with another_process(place.warehouse.path) as process:
        with pytest.raises(SbError) as raised:
            place.load()
        assert f"{place.warehouse.path} stayed in use for 0.3 s" in str(raised.value)
        assert f"PID {process.pid}" in str(raised.value)
        assert "Dagster run" in raised.value.fix
        assert "waiting up to 0.3 s for the warehouse" in caplog.text


def test_waiting_ends_when_the_file_is_free(
    place: Place, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.load()
    patient = Warehouse(database=place.warehouse.database, wait_seconds=60)
    with another_process(place.warehouse.path) as process:
        assert process.stdin is not None

        class Release(logging.Handler):
            """Lets go of the file as soon as the wait was announced."""

            def emit(self, record: logging.LogRecord) -> None:
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write("\n")
                process.stdin.flush()
                assert process.stdout.readline() == "closed\n"

        handler = Release(level=logging.WARNING)
        logging.getLogger("sb_pipelines.resources").addHandler(handler)
        try:
            with patient.reading() as connection:
                assert watermark(connection, "events") == (0, None)
        finally:
            logging.getLogger("sb_pipelines.resources").removeHandler(handler)


def test_an_error_closes_the_file(place: Place) -> None:
    """DuckDBResource leaves it open, and the next process waits for nothing."""
    place.load()
    with pytest.raises(ZeroDivisionError), place.warehouse.writing():
        raise ZeroDivisionError
    with another_process(place.warehouse.path):
        pass


def test_readers_stand_side_by_side_and_cannot_write(place: Place) -> None:
    place.load()
    with place.warehouse.reading() as one, place.warehouse.reading() as other:
        assert one.execute("select current_setting('TimeZone')").fetchall() == [("UTC",)]
        with pytest.raises(duckdb.InvalidInputException, match="read-only"):
            other.execute("delete from events")


def test_only_events_makes_a_warehouse(place: Place) -> None:
    """Totals of an empty warehouse would be published as if nothing had ever happened."""
    with pytest.raises(SbError, match=r"there is no warehouse at .*sb refresh"):
        place.rebuild()
    with pytest.raises(SbError, match="there is no warehouse"):
        place.rows("from events")
    assert not place.warehouse.path.exists()


@pytest.mark.parametrize("damage", ["garbage", "empty", "header"])
def test_a_damaged_file_is_moved_aside_and_rebuilt(
    place: Place, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    place.add(*(invocation(n) for n in range(50)))
    place.refresh()
    path = place.warehouse.path
    content = path.read_bytes()
    path.write_bytes(
        {
            "garbage": b"hello world" * 1000,
            "empty": b"",
            "cut": content[: len(content) // 3],
            "header": content[:20] + b"\xff" * 40 + content[60:],
        }[damage]
    )
    damaged = path.read_bytes()
    place.load()
    assert "was damaged" in caplog.text
    assert path.with_name("warehouse.duckdb.damaged").read_bytes() == damaged
    place.refresh()
    assert place.rows("select sum(n) from skill_totals") == [(50,)]


def test_damage_found_while_reading_moves_the_file_aside(place: Place) -> None:
    """A flipped block opens well; only the query that reads it fails. The next load rebuilds."""
    place.add(*(invocation(n, session_id=f"session-{n * 7919}") for n in range(3000)))
    place.refresh()
    path = place.warehouse.path
    content = bytearray(path.read_bytes())
    with place.warehouse.reading() as connection:
        (block,) = connection.execute(
            "select max(block_id) from pragma_storage_info('events')"
            " where column_name = 'session_id' and segment_type = 'VARCHAR'"
        ).fetchall()[0]
    start = 3 * 4096 + block * 262_144
    for position in range(start + 1000, start + 1100):
        content[position] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DamagedWarehouse, match=r"moved to .*\.damaged"):
        place.rows("select count(distinct session_id) from events")
    with pytest.raises(SbError, match="there is no warehouse"):
        place.fold()
    place.refresh()
    assert place.rows("select count(*) from events") == [(3000,)]


def test_an_sqlite_file_is_never_touched(place: Place) -> None:
    """`warehouse` set to skills.db by mistake must not move the truth aside."""
    place.add(invocation(1))
    content = place.db.read_bytes()
    wrong = Warehouse(database=str(place.db))
    with pytest.raises(SbError, match="is an SQLite database"), wrong.writing(create=True):
        pass
    assert place.db.read_bytes() == content


def test_a_warehouse_of_another_version_is_rebuilt(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.add(invocation(1))
    place.refresh()
    with place.warehouse.writing() as connection:
        connection.execute("update warehouse_version set version = ?", [WAREHOUSE_VERSION + 1])
        connection.execute("create table of_the_future (x integer)")
    with pytest.raises(SbError, match=f"has tables of version {WAREHOUSE_VERSION + 1}"):
        place.rows("from events")
    place.refresh()
    assert "rebuilding it from skills.db" in caplog.text
    tables = {name for (name,) in place.rows("show tables")}
    assert "of_the_future" not in tables
    assert place.rows("select count(*) from events") == [(1,)]


def test_a_watermark_moves_with_its_transaction(place: Place) -> None:
    place.load()

    def move_and_break() -> None:
        with place.warehouse.writing() as connection:
            set_watermark(connection, "own", 7, None)
            assert watermark(connection, "own") == (7, None)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        move_and_break()
    with place.warehouse.reading() as connection:
        assert watermark(connection, "own") == (0, None)
