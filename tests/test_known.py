"""What a live prediction counts: the same after a thousand questions as at the first one."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from sb_serving import sql, times
from sb_serving.errors import SbError
from sb_serving.known import Known, Totals
from sb_serving.live import Live
from sb_serving.predict import Question
from sb_serving.snapshot import Snapshot, SnapshotHolder, publish
from sb_serving.store import Store
from tests.builders import SESSION_BUDDY_INSERT, invocation, new_store
from tests.known_builder import END, snapshot_of, warehouse_of
from tests.live_builder import ODD_TEXTS, At

HOUR = timedelta(hours=1)
NOTHING = Totals(0, np.empty(0, np.uint64), np.empty((0, 3), np.uint32), {})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with new_store(tmp_path) as opened:
        yield opened


def question(at: Any = END, **fields: str) -> Question:
    return Question(**({"skill_name": "a", "at": at, "session_id": "s"} | fields))


def ended_of(store: Store) -> list[dict[str, Any]]:
    """All runs of a store, typed by the warehouse."""
    with duckdb.connect() as connection:
        warehouse_of(store, connection)
        found = connection.execute(
            "select id, skill_name as skill, coalesce(user_id, '') as user,"
            " coalesce(session_id, '') as session, coalesce(workflow_phase, '') as phase,"
            " coalesce(agent, '') as agent, coalesce(agent_version, '') as version,"
            " coalesce(model, '') as model, epoch_us(invoked_at) as begun,"
            " epoch_us(ended_at) as ended, outcome from events"
        )
        names = [column[0] for column in found.description or ()]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def counted(store: Store, asked: Question) -> dict[str, int]:
    """The columns of one question, by looking at every run that the warehouse knows."""
    runs, at, hour = ended_of(store), times.microseconds(asked.at), 3_600_000_000
    session = sorted(
        (r for r in runs if asked.session_id == r["session"] != "" and r["ended"] < at),
        key=lambda run: (run["ended"], run["id"]),
    )
    same = [run for run in runs if run["skill"] == asked.skill_name]
    mine = [run for run in runs if asked.user_id == run["user"] != ""]

    def since(hours: int, some: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [run for run in some if at - hours * hour <= run["ended"] < at]

    phase = [run for run in runs if run["phase"] == asked.workflow_phase]
    agent = (asked.agent, asked.agent_version)
    scopes = {
        "all": runs,
        "skill": same,
        "user": mine,
        "user_skill": [run for run in mine if run["skill"] == asked.skill_name],
        "version": [run for run in same if (run["agent"], run["version"]) == agent],
        "phase": phase,
        "agent": [run for run in runs if run["agent"] == asked.agent],
        "model": [run for run in runs if run["model"] == asked.model],
        "previous": [run for run in runs if session and run["skill"] == session[-1]["skill"]],
        "skill_24h": since(24, same),
        "skill_7d": [r for r in same if 0 <= at // hour - r["begun"] // hour <= 168],
        "all_3h": since(3, runs),
        "phase_3h": since(3, phase),
        "session": session,
    }
    outcomes = [run["outcome"] for run in session]
    found = {
        "asked_at": at,
        "session_failures": outcomes[-3:].count("failed"),
        "session_last_failed": int(outcomes[-1:] == ["failed"]),
        "session_begun_at": min((run["begun"] for run in session), default=at),
    }
    for name, some in scopes.items():
        ends = [run["outcome"] for run in some]
        found[f"{name}_n"] = len(ends)
        found[f"{name}_completed"] = ends.count("completed")
        found[f"{name}_decided"] = ends.count("completed") + ends.count("failed")
    return found


def add_some(store: Store, rng: random.Random, at: Any, number: int) -> None:
    """A run in one of the ways in which rows come: ours, another tool's, late, odd, to come."""
    ago = rng.choice([0.0, 1.0, 3.0, 20.0, 23.9, 24.0, 26.0, 167.5, 168.0, 169.0, 300.0, -0.5])
    start = at - timedelta(hours=ago * rng.choice([1.0, 1.0, rng.random()]))
    lasts = rng.choice([0.0, 1.0, 59.5, 3_600.0, 3 * 3_600.0, 86_400.0])
    outcome = rng.choice(["completed", "failed", "rejected"])
    text = times.to_utc_text(start)
    if rng.random() < 0.3:
        if rng.random() < 0.2:
            text = rng.choice(ODD_TEXTS)
        error = "exit_1" if outcome == "failed" else None
        row = (rng.choice("ab"), text, rng.choice("st"), outcome == "completed", error, lasts, None)
        store.connection.execute(SESSION_BUDDY_INSERT, row)
        return
    store.record(
        invocation(
            number,
            skill_name=rng.choice("ab"),
            session_id=rng.choice("st"),
            user_id=rng.choice(["", "f" * 32]),
            workflow_phase=rng.choice([None, "setup"]),
            agent=rng.choice([None, "x"]),
            agent_version=rng.choice([None, "1", "2"]),
            model=rng.choice([None, "m"]),
            invoked_at=text,
            duration_seconds=lasts,
            outcome=outcome,
            error_type="exit_1" if outcome == "failed" else None,
        )
    )
    if rng.random() < 0.1:  # a companion of a program that writes no end
        store.connection.execute(
            "update skill_user_interactions set ended_at = null"
            " where invocation_id = (select max(id) from skill_invocation)"
        )


@pytest.mark.parametrize("seed", range(3))
def test_what_is_carried_equals_counting_everything(store: Store, seed: int) -> None:
    """Questions, rows and snapshots in any order; the clock goes on, and once goes back."""
    rng = random.Random(seed)
    carried, totals, at, seen = Known(), NOTHING, END - timedelta(days=50), 0
    for step in range(30):
        for _ in range(rng.choice([0, 1, 4])):
            # Nothing that an earlier question missed because it cannot be found: see NO_END.
            add_some(store, rng, at, seen)
            seen += 1
        if step % 10 == 9:
            snapshot = snapshot_of(store, store.path.parent / "snapshots")
            totals = Totals.load(snapshot)
            snapshot.close()
        at += rng.choice([0, 1, 1, 50, 400, -50]) * timedelta(minutes=1)
        asked = question(
            at,
            skill_name=rng.choice("ab"),
            session_id=rng.choice(["", "s"]),
            user_id=rng.choice(["", "f" * 32]),
            workflow_phase=rng.choice(["", "setup"]),
            agent=rng.choice(["", "x"]),
            agent_version=rng.choice(["", "1"]),
            model=rng.choice(["", "m"]),
        )
        expected = counted(store, asked)
        assert carried.counts(store.connection, totals, asked) == expected
        assert Known().counts(store.connection, totals, asked) == expected


def test_little_is_read_for_a_further_question(store: Store) -> None:
    """A day's runs, and those since the snapshot, were once read for each answer."""
    store.import_batch([invocation(n) for n in range(50)])
    known = Known()
    known.counts(store.connection, NOTHING, question(skill_name="commit"))
    asked: list[str] = []
    store.connection.set_trace_callback(asked.append)
    known.counts(
        store.connection, NOTHING, question(END + timedelta(seconds=1), skill_name="commit")
    )
    store.record(invocation(50))
    known.counts(
        store.connection, NOTHING, question(END + timedelta(seconds=2), skill_name="commit")
    )
    store.connection.set_trace_callback(None)
    texts = "\n".join(asked)
    assert "ended_at >=" not in texts
    assert "where i.id > 50" in texts
    assert "where i.id > 0" not in texts
    assert "with recursive hours" not in texts


def test_another_log_in_the_place_of_the_file_is_counted_anew(tmp_path: Path) -> None:
    live = Live(At(tmp_path / "skills.db"), SnapshotHolder(tmp_path / "snapshots"))
    known = Known()

    def now() -> int:
        with live.reading() as reading:
            found = known.counts(reading.connection, NOTHING, question(), reading.file)
        return found["skill_n"]

    with new_store(tmp_path) as store:
        store.import_batch([invocation(n, skill_name="a") for n in range(5)])
    assert now() == 5
    other = tmp_path / "other"
    other.mkdir()
    with new_store(other) as store:  # the same newest row, other ones before
        store.import_batch([invocation(n, skill_name="b") for n in range(4)])
        store.record(invocation(4, skill_name="a"))
    (other / "skills.db").replace(tmp_path / "skills.db")
    assert now() == 1
    shutil.copy(tmp_path / "skills.db", tmp_path / "copy.db")
    with Store.open(tmp_path / "copy.db") as store:
        store.connection.execute("delete from skill_invocation where id = 5")
    # Overwritten in place:
    (tmp_path / "skills.db").write_bytes((tmp_path / "copy.db").read_bytes())
    assert now() == 0
    (tmp_path / "skills.db").unlink()
    with pytest.raises(SbError, match="there is no database at"):
        now()
    (tmp_path / "copy.db").replace(tmp_path / "skills.db")
    assert now() == 0
    live.close()


def test_a_migration_is_noticed(store: Store) -> None:
    """It may give old rows their companion, and with it another outcome."""
    known = Known()
    store.connection.execute(
        SESSION_BUDDY_INSERT, ("a", times.to_utc_text(END - HOUR), "s", 1, None, 1.0, None)
    )
    assert known.counts(store.connection, NOTHING, question())["skill_24h_completed"] == 1
    store.connection.execute("update skill_invocation set completed = 0, error_type = 'exit_1'")
    store.connection.execute("update skill_migrations set applied_at = '2026-11-22T13:00:00'")
    found = known.counts(store.connection, NOTHING, question())
    assert (found["skill_24h_completed"], found["skill_completed"]) == (0, 0)
    assert found["skill_24h_decided"] == 1


def test_an_error_halfway_leaves_nothing_half_counted(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.import_batch([invocation(n, skill_name="a") for n in range(3)])
    known = Known()
    known.counts(store.connection, NOTHING, question())
    store.record(invocation(3, skill_name="a"))
    broken = Totals(-2, NOTHING.codes, NOTHING.counts, {})
    store.connection.execute("begin")  # the caller's own transaction stays as it is
    with monkeypatch.context() as patch:
        patch.setattr("sb_serving.known._session", lambda *_: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            known.counts(store.connection, broken, question())
    assert store.connection.in_transaction
    store.connection.execute("rollback")
    assert known.counts(store.connection, NOTHING, question())["skill_n"] == 4


def test_times_are_read_as_the_warehouse_reads_them() -> None:
    """A session with a February 30 once ended its predictions with an exception."""
    texts = [
        *ODD_TEXTS,
        *("2026-W47-6T10:00:00.000000+00:00", "2026-11-22x10:00:00.000000+00:00"),
        *("2026-11-22T10:00:60+00:00", "0001-01-01T00:00:00+01:00", "9999-12-30T23:59:59-05:00"),
        *("2026-11-22T10:00:00.1234567Z", "2026-11-22T10:00-14:59", "2026-11-22T10:00:00 +01:00"),
        *("\u0662026-11-22", "2026-11-22\n", "1969-12-31T23:59:59.999999+00:00"),
    ]
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        found = connection.execute(sql.load("live/readable.sql"), {"texts": texts}).fetchall()
    assert {(text,) for text in texts if times.readable(text)} == set(found)
    assert times.readable(None) is None
    assert times.readable(2461367.5) is None
    moment = times.readable("1969-12-31 23:59:59.999999-01:00")
    assert moment is not None
    assert times.microseconds(moment) == 3_600_000_000 - 1
    assert times.of_microseconds(3_600_000_000 - 1) == moment


# --- the snapshot's totals ------------------------------------------------------------------------


def snapshot_with(folder: Path, *statements: str) -> Snapshot:
    """A snapshot whose `predictor_totals` was made by these statements."""

    def build(connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute(sql.load("warehouse/schema.sql"))
        for statement in statements:
            connection.execute(statement)

    path = publish(
        build, folder, watermark_id=0, watermark_at=END, published_at=END, code_version="test"
    )
    return Snapshot.open(path, int(path.stem))


ROW = "insert into predictor_totals values "


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("drop table predictor_totals", "predictor_totals"),
        ("alter table predictor_totals drop column decided", "decided"),
        (ROW + "(7, 'all', '', -1, 0, 0)", "out of range"),
        (ROW + "(7, 'all', '', 1, 2, 2)", "completed is no part"),
        (ROW + "(7, 'all', '', 3, 1, null)", "unknown values"),
        (ROW + "(null, 'all', '', 3, 1, 1)", "unknown values"),
        ("alter table predictor_totals alter code type VARCHAR", "codes"),
    ],
)
def test_hostile_totals_are_refused_with_the_reason(
    tmp_path: Path, statement: str, message: str
) -> None:
    snapshot = snapshot_with(tmp_path, statement)
    with pytest.raises(SbError, match=rf"predictor_totals of snapshot 1 cannot be used.*{message}"):
        Totals.load(snapshot)
    snapshot.close()


def test_keys_of_one_code_are_told_apart(tmp_path: Path) -> None:
    """No two names of one code are known, so the codes are given by hand."""
    snapshot = snapshot_with(
        tmp_path, ROW + "(7, 'skill', 'a', 5, 4, 5), (7, 'skill', 'b', 3, 1, 2)"
    )
    found = Totals.load(snapshot).of(
        {"one": ("skill", "a"), "other": ("skill", "b"), "none": ("skill", "c")}
    )
    assert found == {"one": (5, 4, 5), "other": (3, 1, 2)}
    snapshot.close()


def test_totals_are_found_by_scope_and_key(store: Store, tmp_path: Path) -> None:
    store.import_batch([invocation(n, skill_name="ab"[n % 2]) for n in range(5)])
    snapshot = snapshot_of(store, tmp_path / "snapshots")
    totals = Totals.load(snapshot)
    snapshot.close()
    assert totals.until == 5
    assert totals.of({"x": ("skill", "a"), "y": ("all", ""), "z": ("skill", "")}) == {
        "x": (3, 3, 3),
        "y": (5, 5, 5),
    }
    assert NOTHING.of({"x": ("skill", "a")}) == {}
