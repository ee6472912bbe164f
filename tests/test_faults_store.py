"""Full disks, locks, damage, wrong clocks, kill -9: a clear word, and nothing half done."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sb_serving import times
from sb_serving.errors import SbError
from sb_serving.store import Store, backups, migrate
from sb_serving.store import connection as connections
from sb_serving.store.connection import connect_readonly
from tests import session_buddy_builder as builder
from tests.builders import invocation, new_store
from tests.chaos import chaos_recorder

MANY = [invocation(number) for number in range(3000)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An event store with one row."""
    with new_store(tmp_path) as opened:
        opened.record(invocation(0, event_id="first"))
        yield opened


def content(path: Path) -> dict[str, Any]:
    """All rows of a file, read by somebody else."""
    with closing(connect_readonly(path)) as connection:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
        picture = builder.picture(connection)
    return {name: rows for name, rows in picture.items() if not name.startswith("v_")}


def damage(path: Path, index: str = "idx_user_interactions_session") -> None:
    """Overwrite the root of one index."""
    with closing(connect_readonly(path)) as connection:
        (page,) = connection.execute(
            "select rootpage from sqlite_master where name = ?", (index,)
        ).fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)


WRITES: list[Callable[[Store], object]] = [
    lambda store: store.record(invocation(1)),
    lambda store: store.import_batch(MANY[:2]),
    lambda store: store.import_batch(MANY),
    lambda store: store.bulk_import(MANY),
]


@pytest.mark.parametrize("write", WRITES)
def test_a_full_disk_is_named_and_leaves_nothing(
    store: Store, write: Callable[[Store], object]
) -> None:
    before = content(store.path)
    pages = store.connection.execute("pragma page_count").fetchone()[0]
    store.connection.execute(f"pragma max_page_count = {pages}")

    def fill() -> None:
        for number in range(200):  # every index has room for some rows still
            write(store)
            store.record(invocation(number, event_id=f"{number}" * 60, session_id=f"{number}" * 60))

    with pytest.raises(SbError, match=r"the disk under .* is full"):
        fill()
    store.connection.execute("pragma max_page_count = 1000000")
    assert not store.record(invocation(1, event_id="later")).duplicate
    after = content(store.path)
    assert after["ddl"] == before["ddl"]
    pairs = [{row[0] for row in after["skill_invocation"]}]
    pairs.append({row[8] for row in after["skill_user_interactions"]})
    assert pairs[0] == pairs[1]


LIMITED = """
import resource, sys
from pathlib import Path
from sb_serving.errors import SbError
from sb_serving.store import Store, migrate
from tests.test_faults_store import MANY
what, path = sys.argv[1], Path(sys.argv[2])
with Store.open(path) as store:
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
    try:
        if what == "import":
            store.bulk_import(MANY)
        else:
            migrate.backup(store.connection, path)
    except SbError as error:
        print(error)
"""


@pytest.mark.parametrize("what", ["import", "backup"])
def test_a_write_that_the_system_refuses_leaves_nothing(
    tmp_path: Path, store: Store, what: str
) -> None:
    """A limit on file sizes, as a failing disk would, stops SQLite in the middle of its writing."""
    if what == "backup":
        store.import_batch(MANY)
        store.connection.execute("pragma wal_checkpoint(truncate)")
    before = content(store.path)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, what, str(store.path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Nothing was changed" in done.stdout, done.stdout + done.stderr
    assert content(store.path) == before
    assert list(tmp_path.glob("*.backup-*")) == []
    assert store.bulk_import(MANY).inserted == (0 if what == "backup" else 3000)


@pytest.mark.parametrize("write", WRITES)
def test_a_read_only_database_is_named(store: Store, write: Callable[[Store], object]) -> None:
    store.connection.execute("pragma query_only = on")
    with pytest.raises(SbError, match=r"cannot be written: .* read-only"):
        write(store)


def test_a_database_held_by_another_program_is_waited_for_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's own lock: a program that keeps its transaction open."""
    new_store(tmp_path).close()
    path = tmp_path / "skills.db"
    monkeypatch.setattr(connections, "BUSY_SECONDS", 0.1)
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as other,
        Store.open(path) as store,
    ):
        other.execute("begin immediate")
        with pytest.raises(SbError, match=r"stayed locked by another program.*fuser .*skills\.db"):
            store.record(invocation(1))
        other.execute("rollback")
        assert not store.record(invocation(1)).duplicate


def test_a_command_that_only_looks_does_not_wait_long(store: Store) -> None:
    """Another program in exclusive mode keeps readers out too; it says how long it waited."""
    store.close()
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("pragma locking_mode = exclusive")
        other.execute("pragma journal_mode = delete")
        other.execute("begin exclusive")
        begun = time.monotonic()
        with pytest.raises(SbError, match=r"stayed locked by another program for 0\.2 s"):
            connect_readonly(store.path, wait=0.2)
        assert time.monotonic() - begun < 5


def test_a_process_that_never_ends_its_turn_is_not_waited_for_for_ever(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our own queue: a stopped process would have stopped every recorder."""
    monkeypatch.setattr(connections, "BUSY_SECONDS", 0.1)
    with Path(f"{store.path}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(SbError, match="stayed locked by another program"):
            store.record(invocation(1))
    monkeypatch.setattr(connections, "BUSY_SECONDS", 30.0)
    assert not store.record(invocation(1)).duplicate


def test_a_folder_that_takes_no_lock_file_costs_only_fairness(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections.os, "open", lambda *_: (_ for _ in ()).throw(OSError()))
    assert not store.record(invocation(1)).duplicate


def test_damage_found_while_writing_is_named_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "skills.db"
    with new_store(tmp_path) as store:
        store.import_batch([invocation(number, event_id=f"old-{number}") for number in range(3000)])
        backup = migrate.backup(store.connection, path)
    damage(path)
    way_out = f"malformed.*sb migrate restore .*{backup.name}"
    with Store.open(path) as store:
        for write in WRITES:
            with pytest.raises(SbError, match=way_out):
                write(store)


def test_a_damaged_database_gets_no_backup(store: Store, tmp_path: Path) -> None:
    store.import_batch(MANY)
    store.close()
    path = tmp_path / "skills.db"
    damage(path)
    with (
        closing(connect_readonly(path)) as connection,
        pytest.raises(SbError, match="is damaged, so no backup was made"),
    ):
        migrate.backup(connection, path)
    assert list(tmp_path.glob("*.backup-*")) == []


def test_a_schema_changed_under_an_open_store_is_named(store: Store) -> None:
    with closing(connections.connect(store.path)) as other:
        migrate.down(other, store.path)
    with pytest.raises(SbError, match=r"tables .* are not what they should be.*sb migrate status"):
        store.record(invocation(1))
    with closing(connections.connect(store.path)) as other:
        migrate.up(other, store.path)
    assert not store.record(invocation(1)).duplicate


def test_a_clock_that_steps_back_loses_and_disorders_nothing(store: Store) -> None:
    """Ids follow commits, not clocks; the latest start stays the latest."""
    now = times.now()
    ids = [
        store.record(
            invocation(number, invoked_at=times.to_utc_text(now - timedelta(hours=number)))
        ).id
        for number in range(1, 4)
    ]
    assert ids == [2, 3, 4]
    latest = store.connection.execute("select last_invocation_at from skill_metrics_cache")
    assert latest.fetchone() == (times.to_utc_text(now - timedelta(hours=1)),)


def test_a_clock_that_steps_back_overwrites_no_backup(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = times.now()
    moments = iter([now, now, now + timedelta(seconds=1)])
    monkeypatch.setattr(backups.times, "now", lambda: next(moments))
    first = migrate.backup(store.connection, store.path)
    second = migrate.backup(store.connection, store.path)
    assert backups.found(store.path) == [first, second]


def test_acknowledged_events_survive_kill_9() -> None:
    """Two rounds of `tests/chaos/chaos_recorder.py`."""
    assert chaos_recorder.run(2, seed=int.from_bytes(os.urandom(4), "big")) > 0
