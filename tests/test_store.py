"""The recorder: what is stored is checked, complete, once, and counted the same by every way in."""

from __future__ import annotations

import dataclasses
import itertools
import json
import multiprocessing
import sqlite3
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sb_serving import times
from sb_serving.errors import SbError
from sb_serving.events import KINDS, OUTCOMES, PHASES, Invocation
from sb_serving.store import FileOffset, Identity, Store, recorder
from sb_serving.store.reader import arrow_events, max_id
from tests.builders import SESSION_BUDDY_INSERT, invocation, new_store

AGGREGATES = {
    "skill_metrics": (
        "skill_name, total_invocations, completed_invocations, abandoned_invocations,"
        " round(total_duration_seconds, 6), first_invoked, last_invoked,"
        " round(completion_rate, 6), round(avg_duration_seconds, 6)"
    ),
    "session_skills": "*",
    "skill_hour": (
        "skill_name, hour, kind, completed, failed, rejected, cancelled, interrupted, no_result,"
        " duration_n, round(duration_sum, 6)"
    ),
    "skill_metrics_cache": "skill_name, last_invocation_at",
}


def aggregates(store: Store) -> dict[str, list[object]]:
    found: dict[str, list[object]] = {
        table: sorted(store.connection.execute(f"select {columns} from {table}").fetchall())
        for table, columns in AGGREGATES.items()
    }
    found["json"] = sorted(
        (name, sorted(json.loads(paths).items()), sorted(json.loads(errors).items()))
        for name, paths, errors in store.connection.execute(
            "select skill_name, workflow_paths, common_errors from skill_metrics"
        )
    )
    return found


def test_a_record_is_two_rows_under_one_id(tmp_path: Path) -> None:
    with new_store(tmp_path) as store:
        result = store.record(invocation(outcome="failed", error_type="exit_1"))
        row = store.connection.execute(
            "select i.completed, i.error_type, c.outcome, c.ended_at, c.event_id"
            " from skill_invocation i join skill_user_interactions c on c.invocation_id = i.id"
            " where i.id = ?",
            (result.id,),
        ).fetchone()
    assert row == (0, "exit_1", "failed", "2026-11-20T10:00:02.500000+00:00", "event-1")


def test_a_repeated_event_id_is_dropped(tmp_path: Path) -> None:
    with new_store(tmp_path) as store:
        store.record(invocation(1))
        again = store.record(invocation(1, outcome="failed", session_id="a-fork"))
        assert again.duplicate
        assert store.connection.execute("select count(*) from skill_invocation").fetchone() == (1,)


def test_records_without_event_id_are_dropped_by_session_skill_and_start(tmp_path: Path) -> None:
    with new_store(tmp_path) as store:
        assert not store.record(invocation(event_id=None)).duplicate
        assert store.record(invocation(event_id=None)).duplicate
        assert not store.record(invocation(event_id=None, session_id="other")).duplicate


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("skill_name", ""),
        ("skill_name", " "),
        ("skill_name", "a\x00b"),
        ("skill_name", "x" * 257),
        ("session_id", ""),
        ("outcome", "done"),
        ("kind", "plugin"),
        ("workflow_phase", "deploying"),
        ("duration_seconds", -1.0),
        ("duration_seconds", float("nan")),
        ("duration_seconds", float("inf")),
        ("error_type", "exit_1"),  # on a completed run
        ("user_id", "alice"),
        ("project_id", "/home/alice/project"),
        ("rating", 99.0),
        ("tool_calls", -1),
        ("invoked_at", "garbage"),
        ("invoked_at", "2026-13-45T00:00:00+00:00"),
        ("invoked_at", "2026-13-45T00:00:00.000000+00:00"),
        ("invoked_at", ""),
        ("invoked_at", "2999-01-01T00:00:00Z"),
        ("invoked_at", "9950-01-01T00:00:00Z"),
        ("skill_name", "half of a \ud800 pair"),
        ("skill_name", b"bytes"),
        ("duration_seconds", "5"),
        ("rating", "5"),
        ("tool_calls", 2**40),
        ("tool_failures", 1.5),
        ("user_id", None),
        ("phase_inferred", "yes"),
        ("agent", 5),
        ("model", "two\nlines"),
        ("workflow_path", "x" * 1025),
    ],
)
def test_a_wrong_field_is_refused_by_name(tmp_path: Path, field: str, value: object) -> None:
    """Session-Buddy stored such rows and lost them to every time window, or failed in a trigger."""
    with new_store(tmp_path) as store:
        with pytest.raises(SbError, match=field):
            store.record(invocation(**{field: value}))
        assert store.is_empty()


def test_a_refused_record_does_not_stop_its_batch(tmp_path: Path) -> None:
    with new_store(tmp_path) as store:
        result = store.import_batch([invocation(1), invocation(2, kind="?"), invocation(3)])
    assert (result.inserted, result.duplicates, len(result.refused)) == (2, 0, 1)
    assert "kind = '?'" in result.refused[0]


@pytest.mark.parametrize("text", ["a.b", "[0]", "[Errno 2]", "a[0]", 'with "quotes"', "$", "."])
def test_paths_and_errors_are_keys_like_any_other(tmp_path: Path, text: str) -> None:
    """Session-Buddy spliced them into a JSON path: `a.b` nested, `[0]` aborted the insert."""
    with new_store(tmp_path) as store:
        for number in (1, 2):
            store.record(invocation(number, outcome="failed", error_type=text, workflow_path=text))
        paths, errors = store.connection.execute(
            "select workflow_paths, common_errors from skill_metrics"
        ).fetchone()
    assert json.loads(paths) == json.loads(errors) == {text: 2}


def test_rows_of_another_tool_are_counted_everywhere(tmp_path: Path) -> None:
    with new_store(tmp_path) as store:
        store.record(invocation(1))
        rows = [
            ("commit", "2026-11-20T10:30:00+00:00", "s", 1, None, 2.0, None),
            ("commit", "2026-11-20T10:31:00+00:00", "s", 0, "boom", None, "[0]"),
            ("commit", "2026-11-20T12:32:00+02:00", "s", 0, "", None, ""),
            ("commit", "2026-13-45", "s", 0, None, None, None),
        ]
        store.connection.executemany(SESSION_BUDDY_INSERT, rows)
        hour = store.connection.execute(
            "select hour, completed, failed, no_result, duration_n from skill_hour"
        ).fetchall()
        total = store.connection.execute("select total_invocations from skill_metrics").fetchone()
        following = store.record(invocation(2))
    assert hour == [("2026-11-20T10", 2, 1, 1, 2)]
    assert total == (5,)
    assert following.id == 6


def test_the_last_moment_of_an_hour_belongs_to_it(tmp_path: Path) -> None:
    """SQLite's strftime rounds 59.9999996 s up into the next hour."""
    with new_store(tmp_path) as store:
        store.record(invocation(invoked_at="2026-11-20T10:59:59.999999+00:00"))
        assert store.connection.execute("select hour from skill_hour").fetchall() == [
            ("2026-11-20T10",)
        ]


names = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=8)
records = st.builds(
    Invocation,
    skill_name=st.sampled_from(["a", "b.c", "mcp__x__y"]),
    invoked_at=st.datetimes(
        min_value=datetime(2026, 11, 19),
        max_value=datetime(2026, 11, 21),
    ).map(times.to_utc_text),
    session_id=st.sampled_from(["s1", "s2", "s3"]),
    outcome=st.sampled_from(OUTCOMES),
    kind=st.just("skill"),
    source=st.just("test"),
    event_id=st.none() | st.integers(0, 30).map(str),
    duration_seconds=st.none() | st.floats(0, 1e5, width=32),
    workflow_phase=st.none() | st.sampled_from(PHASES),
    workflow_path=st.none() | names.filter(str.strip),
)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(records, max_size=30), st.lists(st.integers(0, 30), max_size=3))
def test_every_way_in_leaves_the_same_aggregates(
    tmp_path_factory: pytest.TempPathFactory, given_records: list[Invocation], cuts: list[int]
) -> None:
    """One by one, in batches row by row or as sets, in bulk: rows and aggregates are equal."""
    folder = tmp_path_factory.mktemp("ways")
    new_store(folder).close()
    paths = [folder / f"{way}.db" for way in ("one", "batch", "sets", "bulk")]
    for path in paths:
        path.write_bytes((folder / "skills.db").read_bytes())
    edges = [0, *sorted(cuts), len(given_records)]
    parts = [given_records[start:end] for start, end in itertools.pairwise(edges)]
    with (
        Store.open(paths[0]) as one,
        Store.open(paths[1]) as batch,
        Store.open(paths[2]) as sets,
        Store.open(paths[3]) as bulk,
        pytest.MonkeyPatch.context() as patch,
    ):
        for record in given_records:
            one.record(record)
        inserted = 0
        for part in parts:
            patch.setattr(recorder, "SET_BASED_FROM", 1000)
            batch.import_batch(part)
            patch.setattr(recorder, "SET_BASED_FROM", 1)
            sets.import_batch(part)
            inserted += bulk.bulk_import(part).inserted
        stores = (one, batch, sets, bulk)
        first, *others = map(aggregates, stores)
        assert all(other == first for other in others)
        rows = [
            store.connection.execute(
                "select i.skill_name, i.invoked_at, i.session_id, i.completed, i.duration_seconds,"
                " c.event_id, c.outcome, c.ended_at"
                " from skill_invocation i join skill_user_interactions c on c.invocation_id = i.id"
                " order by i.id"
            ).fetchall()
            for store in stores
        ]
        assert all(other == rows[0] for other in rows)
        assert len(rows[0]) == inserted
        ends = {
            (record.invoked_at, record.duration_seconds): record.ended_at
            for record in given_records
        }
        assert all(ends[row[1], row[4]] == row[7] for row in rows[0])
        assert bulk.connection.execute("pragma foreign_key_check").fetchall() == []


def steps(store: Store, record: Invocation) -> int:
    """How many hundred steps of SQLite's machine one record takes."""
    counted = 0

    def count() -> int:
        nonlocal counted
        counted += 1
        return 0

    store.connection.set_progress_handler(count, 100)
    try:
        assert not store.record(record).duplicate
    finally:
        store.connection.set_progress_handler(None, 0)
    return counted


@pytest.mark.parametrize(
    "fields",
    [
        {"duration_seconds": 0.0},  # the average over all rows of the skill was taken each time
        {"event_id": None, "duration_seconds": None},  # all rows of the session were looked at
    ],
)
def test_a_record_costs_no_more_when_its_skill_and_session_are_long(
    tmp_path: Path, fields: dict[str, object]
) -> None:
    with new_store(tmp_path) as store:
        store.record(invocation(4000, **fields))
        few = steps(store, invocation(0, **fields))
        store.import_batch([invocation(number, **fields) for number in range(1, 3000)])
        assert steps(store, invocation(3001, **fields)) <= few + 2


def test_the_average_of_zeros_gives_way_to_the_true_one(tmp_path: Path) -> None:
    """The number of rows with a duration is lost in V1's columns while all of them are 0."""
    with new_store(tmp_path) as store:
        for number, seconds in enumerate([0.0, 0.0, None, 9.0, 3.0]):
            store.record(invocation(number, duration_seconds=seconds))
        average = store.connection.execute("select avg_duration_seconds from skill_metrics")
        assert average.fetchone() == (3.0,)


def test_bulk_import_works_over_several_chunks_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "CHUNK", 7)
    with new_store(tmp_path) as store:
        many = [invocation(number, kind=KINDS[number % 7]) for number in range(50)]
        assert store.bulk_import(many).inserted == 50
        again = store.bulk_import(many)
        assert (again.inserted, again.duplicates) == (0, 50)
        triggers = store.connection.execute(
            "select count(*) from sqlite_master where type = 'trigger'"
        ).fetchone()
        assert triggers == (5,)


def test_an_offset_is_stored_with_the_rows_that_it_covers(tmp_path: Path) -> None:
    offset = FileOffset("k" * 32, "claude_code", 120, 200, 5, "f")
    with new_store(tmp_path) as store:
        store.import_batch([invocation(1)], offset=offset)
        store.import_batch([], offset=dataclasses.replace(offset, offset=200))
        assert store.file_offsets("claude_code")[offset.file_key].offset == 200
        assert store.file_offsets("codex") == {}


def _record_many(path: Path, worker: int, count: int) -> None:
    with Store.open(path) as store:
        for number in range(count):
            store.record(invocation(number, event_id=f"{worker}-{number}", session_id=f"{worker}"))


def test_many_processes_record_at_once_without_loss(tmp_path: Path) -> None:
    """Ids rise in commit order and every process gets its turn."""
    new_store(tmp_path).close()
    path = tmp_path / "skills.db"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_record_many, args=(path, n, 60)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    connection = sqlite3.connect(path)
    ids = [row[0] for row in connection.execute("select id from skill_invocation order by rowid")]
    connection.close()
    assert ids == list(range(1, 241))


def test_opening_a_path_without_database_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(SbError, match="no database"):
        Store.open(tmp_path / "skills.db")
    assert list(tmp_path.glob("skills.db*")) == []


def test_a_file_that_is_no_database_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "skills.db"
    path.write_text("this is a text file, not a database, " * 200)
    with pytest.raises(SbError, match=r"skills\.db is not a readable SQLite database"):
        Store.open(path)


def test_arrow_reads_the_rows_between_two_watermarks(tmp_path: Path) -> None:
    import duckdb

    with new_store(tmp_path) as store:
        for number in range(5):
            store.record(invocation(number))
        store.connection.execute(
            SESSION_BUDDY_INSERT, ("x", "2026-11-20T11:00:00+00:00", "s", 0, "boom", None, None)
        )
        top = max_id(store.connection)
        # A connection of its own: another test of this process may have left the shared one busy.
        with duckdb.connect() as reading, arrow_events(store.path, 2, top) as incoming:
            rows = reading.execute("select id, kind, outcome, source from incoming").fetchall()
    assert incoming is not None
    assert [row[0] for row in rows] == [3, 4, 5, 6]
    assert rows[-1] == (6, "skill", "failed", "session_buddy")


def test_projects_of_a_windows_log_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken for names below the current folder, all had the root of its repository."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    identity = Identity(b"k" * 32)
    folders = ["D:\\one", "D:\\two", "one", str(tmp_path / "below")]
    assert len({identity.project(folder) for folder in folders}) == 4
    assert identity.project(str(tmp_path / "below")) == identity.project(str(tmp_path))
