"""Publishing and serving the snapshot file: nothing half, nothing torn, nothing left open."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import duckdb
import numpy as np
import pytest

from sb_serving import snapshot
from sb_serving.errors import SbError
from sb_serving.frame import Total
from sb_serving.snapshot import SnapshotHolder, publish, put_array
from tests.live_builder import NOW, make_totals

TOTAL = Total(3, 2, 4.5, (0, 0, 1, 2, 2, 2, 2, 2, 2))
KEY = ("commit", "skill", "unknown", "completed")


def build(connection: duckdb.DuckDBPyConnection) -> None:
    """The least that a snapshot holds, and one table more."""
    make_totals(connection, {KEY: TOTAL})
    connection.execute("create table numbers as select range as i from range(1000)")


def published(
    folder: Path, build: Callable[[duckdb.DuckDBPyConnection], None] = build, **fields: Any
) -> Path:
    values: dict[str, Any] = {
        "watermark_id": 42,
        "watermark_at": NOW,
        "published_at": NOW,
        "code_version": "test",
    }
    return publish(build, folder, **(values | fields))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for snapshots and nothing else."""
    folder = tmp_path / "snapshots"
    folder.mkdir()
    return folder


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


# --- publishing -----------------------------------------------------------------------------------


def test_a_published_snapshot_is_served_with_its_manifest(folder: Path) -> None:
    path = published(folder / "new" / "folder", invalid_rows=2, out_of_range_rows=3)
    assert path.name == "000001.duckdb"
    holder = SnapshotHolder(path.parent)
    with holder.pin() as served:
        assert served is not None
        manifest = served.manifest
        assert dict(served.totals) == {KEY: TOTAL}
        assert served.query("select sum(i) from numbers where i < $n", {"n": 10}) == [(45,)]
    assert (manifest.number, manifest.watermark_id) == (1, 42)
    assert manifest.watermark_at == manifest.published_at == "2026-11-22T12:20:00.000000+00:00"
    assert dict(manifest.table_counts) == {"numbers": 1000, "skill_totals": 1}
    assert (manifest.invalid_rows, manifest.out_of_range_rows) == (2, 3)
    holder.close()


def test_a_log_without_readable_rows_has_no_watermark_time(folder: Path) -> None:
    published(folder, watermark_id=0, watermark_at=None)
    holder = SnapshotHolder(folder)
    assert holder.current is not None
    assert holder.current.manifest.watermark_at is None
    holder.close()


def test_numbers_rise_and_only_the_newest_stay(folder: Path) -> None:
    for _ in range(4):
        newest = published(folder, keep=2)
    assert files(folder) == ["000003.duckdb", "000004.duckdb"]
    assert newest.name == "000004.duckdb"
    published(folder, keep=1)
    assert files(folder) == ["000005.duckdb"]
    with pytest.raises(SbError, match="keep = 0"):
        published(folder, keep=0)


def test_numbers_go_on_beyond_six_digits(folder: Path) -> None:
    shutil.move(published(folder), folder / "999999.duckdb")
    assert published(folder).name == "1000000.duckdb"
    holder = SnapshotHolder(folder)
    assert holder.current is not None
    assert holder.current.manifest.number == 1_000_000
    holder.close()


def test_what_fails_while_building_leaves_nothing(folder: Path) -> None:
    published(folder)

    def fails(connection: duckdb.DuckDBPyConnection) -> None:
        build(connection)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        published(folder, fails)
    assert files(folder) == ["000001.duckdb"]


def test_what_serving_would_refuse_is_not_published(folder: Path) -> None:
    """The check of the reader runs before the file becomes visible."""
    with pytest.raises(SbError, match="no table skill_totals"):
        published(folder, lambda connection: None)
    assert files(folder) == []


def test_the_build_may_read_another_file(folder: Path) -> None:
    with duckdb.connect(str(folder / "warehouse.duckdb")) as warehouse:
        warehouse.execute("create table t as select 7 as x")

    def copies(connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute(f"attach '{folder}/warehouse.duckdb' as warehouse (read_only)")
        connection.execute("create table t as from warehouse.t")
        build(connection)

    holder = SnapshotHolder(published(folder / "snapshots", copies).parent)
    with holder.pin() as served:
        assert served is not None
        assert served.query("from t") == [(7,)]
    assert set(served.manifest.table_counts) == {"numbers", "skill_totals", "t"}
    holder.close()


def test_two_publishers_do_not_meet(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "PUBLISH_WAIT_SECONDS", 0.2)

    def publishes_too(connection: duckdb.DuckDBPyConnection) -> None:
        build(connection)
        with pytest.raises(SbError, match=r"has been publishing into .* for 0.2 s"):
            published(folder)

    assert published(folder, publishes_too).name == "000001.duckdb"
    assert files(folder) == ["000001.duckdb"]


def test_a_publisher_waits_for_the_one_before(folder: Path) -> None:
    """The second is asked for while the first builds, and ends after it."""
    threads = []

    def slowly(connection: duckdb.DuckDBPyConnection) -> None:
        build(connection)
        threads.append(threading.Thread(target=published, args=(folder,)))
        threads[0].start()
        time.sleep(0.2)

    published(folder, slowly)
    threads[0].join()
    assert files(folder) == ["000001.duckdb", "000002.duckdb"]


def test_a_folder_that_cannot_be_written_is_named(folder: Path) -> None:
    (folder / "file").write_text("")
    with pytest.raises(SbError, match=f"{folder}/file/snapshots cannot be written"):
        published(folder / "file" / "snapshots")


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.test_snapshot import build, published

def killed(connection):
    build(connection)
    if sys.argv[2] == "building":
        os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[2] == "renaming":
    Path.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
published(Path(sys.argv[1]), killed)
"""


@pytest.mark.parametrize("moment", ["building", "renaming"])
def test_a_killed_publisher_leaves_nothing_visible(folder: Path, moment: str) -> None:
    """What it leaves is swept by the next one, whose number is not skipped."""
    published(folder)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), moment],
        cwd=Path(__file__).parent.parent,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    left = set(files(folder)) - {"000001.duckdb"}
    assert left
    assert all(name.startswith(".tmp-") for name in left)
    holder = SnapshotHolder(folder)
    assert holder.current is not None
    assert holder.current.manifest.number == 1
    assert holder.refused == ()
    holder.close()
    published(folder)
    assert files(folder) == ["000001.duckdb", "000002.duckdb"]


# --- refusing -------------------------------------------------------------------------------------


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_at_the_end(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def with_sql(*statements: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with duckdb.connect(str(path)) as connection:
            for statement in statements:
                connection.execute(statement)

    return change


def with_wal(path: Path) -> None:
    Path(f"{path}.wal").write_bytes(b"")


BAD: list[tuple[Callable[[Path], None], str]] = [
    (truncated, "Could not read|bytes of"),
    (cut_at_the_end, "Could not read|bytes of"),
    (emptied, "not a valid DuckDB database"),
    (with_sql("drop table manifest"), "no manifest"),
    (with_sql("delete from manifest"), "manifest has 0 rows"),
    (with_sql("insert into manifest from manifest"), "manifest has 2 rows"),
    (with_sql("alter table manifest drop watermark_id"), "manifest cannot be read"),
    (with_sql("update manifest set table_counts = 'x'"), "manifest cannot be read"),
    (with_sql("update manifest set schema_version = 99"), "version is 99.*Upgrade"),
    (with_sql("update manifest set schema_version = 0"), "version is 0.*sb refresh"),
    (with_sql("update manifest set number = 7"), "says number 7"),
    (with_sql("delete from numbers where i = 0"), "numbers has 999 rows, its manifest says 1000"),
    (with_sql("drop table numbers"), "numbers has no rows, its manifest says 1000"),
    (with_sql("create table extra (i int)"), "extra has 0 rows, its manifest says nothing"),
    (
        with_sql(
            "drop table skill_totals", """update manifest set table_counts = '{"numbers": 1000}'"""
        ),
        "no table skill_totals",
    ),
    (with_sql("alter table skill_totals rename le_1 to x"), "le_1"),
    (with_wal, "wal"),
]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three good snapshots, to copy from."""
    folder = tmp_path_factory.mktemp("three")
    for _ in range(3):
        published(folder)
    return folder


@pytest.mark.parametrize(("damage", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_a_bad_snapshot_is_refused_and_the_one_before_serves(
    folder: Path,
    three: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
    reason: str,
) -> None:
    """At the start as well as at a change; the reason is kept and logged once."""
    shutil.copy(three / "000001.duckdb", folder)
    running = SnapshotHolder(folder)
    shutil.copy(three / "000002.duckdb", folder / "copying")
    damage(folder / "copying")
    for part in folder.glob("copying*"):
        part.rename(folder / part.name.replace("copying", "000002.duckdb"))
    with caplog.at_level(logging.ERROR):
        assert not running.poll()
        assert not running.poll()
    assert len(caplog.records) == 1
    started = SnapshotHolder(folder)
    for holder in (running, started):
        assert holder.current is not None
        assert holder.current.manifest.number == 1
        (text,) = holder.refused
        assert text.startswith("000002.duckdb: ")
        with pytest.raises(AssertionError, match=reason):
            raise AssertionError(text)
    shutil.copy(three / "000003.duckdb", folder)
    for holder in (running, started):
        assert holder.poll()
        assert holder.current is not None
        assert holder.current.manifest.number == 3
        assert holder.refused == ()
        holder.close()


def test_without_any_snapshot_there_is_none(folder: Path) -> None:
    holder = SnapshotHolder(folder / "nothing" / "here")
    with holder.pin() as served:
        assert served is None
    published(folder / "nothing" / "here")
    assert holder.poll()
    with holder.pin() as served:
        assert served is not None
    holder.close()
    assert holder.current is None


def test_a_folder_that_cannot_be_listed_keeps_what_is_served(folder: Path) -> None:
    published(folder)
    holder = SnapshotHolder(folder)
    folder.rename(folder.parent / "away")
    folder.write_text("a file")
    assert not holder.poll()
    assert holder.current is not None
    assert str(folder) in holder.refused[0]
    holder.close()


def test_taking_the_newest_away_goes_back_to_the_one_before(folder: Path) -> None:
    """The highest number wins: so an operator can step back."""
    published(folder)
    newest = published(folder)
    holder = SnapshotHolder(folder)
    newest.unlink()
    assert holder.poll()
    assert holder.current is not None
    assert holder.current.manifest.number == 1
    holder.close()


def test_a_replaced_snapshot_is_not_served_from_cache(folder: Path) -> None:
    """DuckDB serves a replaced file from its cache of the old one; ours gets another name."""
    published(folder)
    holder = SnapshotHolder(folder)
    published(folder, lambda connection: make_totals(connection, {}))
    assert holder.poll()
    with holder.pin() as served:
        assert served is not None
        assert served.query("select count(*) from skill_totals") == [(0,)]
    holder.close()


@pytest.mark.parametrize(
    "statement",
    [
        "create table t (i int)",
        "delete from numbers",
        "set threads = 8",
        "set enable_external_access = true",
        "attach '/tmp/other.duckdb'",
        "copy numbers to '/tmp/numbers.csv'",
        "from read_csv('/etc/passwd')",
        "install httpfs",
    ],
)
def test_a_query_can_only_read_the_snapshot(folder: Path, statement: str) -> None:
    published(folder)
    holder = SnapshotHolder(folder)
    with holder.pin() as served:
        assert served is not None
        with pytest.raises(duckdb.Error):
            served.query(statement)
    holder.close()


# --- swapping -------------------------------------------------------------------------------------


def numbered(number: int) -> Callable[[duckdb.DuckDBPyConnection], None]:
    """A snapshot whose every number says which one it is."""

    def make(connection: duckdb.DuckDBPyConnection) -> None:
        make_totals(connection, {KEY: Total(number, 0, 0.0, (0,) * 9)})
        connection.execute(f"create table a as select {number} as x from range(100)")
        connection.execute(f"create table b as select {number} as x from range(100)")

    return make


def swap_under_readers(folder: Path, swaps: int) -> int:
    """Change snapshots while four threads read, and check every reading.

    Each reading asks three queries of one pinned snapshot; all must be of one number. Every old
    file is closed in the end: no descriptor is left over.

    Returns:
        How many readings were made.
    """
    made = 0
    for number in range(1, swaps + 2):
        published(folder / "ready", numbered(number), keep=swaps + 1)
    served = folder / "served"
    served.mkdir()
    (folder / "ready" / "000001.duckdb").rename(served / "000001.duckdb")
    holder = SnapshotHolder(served)
    descriptors = _open_files(folder)
    stop = threading.Event()
    readings: SimpleQueue[int | BaseException] = SimpleQueue()

    def read() -> None:
        try:
            while not stop.is_set():
                with holder.pin() as pinned:
                    assert pinned is not None
                    number = pinned.manifest.number
                    (a,) = pinned.query("select distinct x from a")
                    (b,) = pinned.query("select distinct x from b")
                    (n,) = pinned.query("select n from skill_totals")
                    assert (number,) == a == b == n
                    assert pinned.totals[KEY].n == number
                readings.put(number)
        except BaseException as error:  # noqa: BLE001 - told to the test's own thread
            readings.put(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for number in range(2, swaps + 2):
            name = f"{number:06d}.duckdb"
            (folder / "ready" / name).rename(served / name)
            assert holder.poll()
            (served / f"{number - 1:06d}.duckdb").unlink()
            reading: int | BaseException = 0
            while reading != number:
                reading = readings.get(timeout=60)
                assert isinstance(reading, int), reading
                made += 1
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    while not readings.empty():
        assert isinstance(readings.get(), int)
        made += 1
    assert holder.refused == ()
    assert len(_open_files(folder)) == len(descriptors)
    assert sum("duckdb" in name for name in _open_files(folder)) == 1
    holder.close()
    assert not any("duckdb" in name for name in _open_files(folder))
    return made


def test_swaps_under_readers_drop_and_tear_nothing(folder: Path) -> None:
    """Ten here; `tests.validate.validate_snapshot_swaps` makes a hundred."""
    swap_under_readers(folder, 10)


def _open_files(folder: Path) -> list[str]:
    """What this process has open in a folder, by name; where the system tells.

    Not in others: tests before this one may leave files open until they are collected.
    """
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        pytest.skip("needs /proc/self/fd")
    names = []
    for entry in list(descriptors.iterdir()):
        try:
            names.append(str(entry.readlink()))
        except OSError:
            continue  # the descriptor of the listing itself
    return [name for name in names if name.startswith(str(folder.resolve()))]


def test_a_pinned_snapshot_stays_open_until_its_reader_leaves(folder: Path) -> None:
    published(folder)
    holder = SnapshotHolder(folder)
    with holder.pin() as old:
        assert old is not None
        published(folder, keep=1)
        assert holder.poll()
        with holder.pin() as new:
            assert new is not None
            assert new.manifest.number == 2
        holder.close()
        assert old.query("select count(*) from numbers") == [(1000,)]
        with pytest.raises(duckdb.Error):
            new.query("select 1")
    with pytest.raises(duckdb.Error):
        old.query("select 1")
    assert old.totals[KEY] == TOTAL


# --- arrays and anomalies -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.int16).reshape(3, 4),
        np.array([[0.1, np.nan], [np.inf, -1.0]]),
        np.array([True, False]),
        np.zeros((0, 5), dtype=np.float32),
        np.array(3.5),
        np.arange(12).reshape(3, 4).T,
        np.array([1, 2], dtype=">i4"),
    ],
    ids=str,
)
def test_an_array_comes_back(folder: Path, array: np.ndarray[Any, Any]) -> None:
    def make(connection: duckdb.DuckDBPyConnection) -> None:
        build(connection)
        put_array(connection, "forest", array)
        put_array(connection, "other", np.zeros(1))

    published(folder, make)
    holder = SnapshotHolder(folder)
    with holder.pin() as served:
        assert served is not None
        assert served.arrays("none") == {}
        ((name, found),) = served.arrays("for").items()
    assert name == "forest"
    np.testing.assert_array_equal(found, array)
    assert found.shape == array.shape
    assert found.dtype == array.dtype.newbyteorder("<")
    holder.close()


def test_an_array_of_objects_is_refused() -> None:
    with duckdb.connect() as connection, pytest.raises(ValueError, match="only plain numbers"):
        put_array(connection, "x", np.array(["a"]))


@pytest.mark.parametrize("change", ["dtype = 'O'", "shape = [5]", "dtype = 'nonsense'"])
def test_a_damaged_array_is_refused(folder: Path, change: str) -> None:
    def make(connection: duckdb.DuckDBPyConnection) -> None:
        build(connection)
        put_array(connection, "x", np.arange(3))
        connection.execute(f"update arrays set {change}")

    published(folder, make)
    holder = SnapshotHolder(folder)
    with holder.pin() as served:
        assert served is not None
        with pytest.raises(SbError, match="'x' of snapshot 1 is damaged"):
            served.arrays("x")
    holder.close()


def test_bytes_that_changed_on_disk_are_refused(folder: Path) -> None:
    """DuckDB notices by its sums of each block; once that ended the answer with its exception."""

    def make(connection: duckdb.DuckDBPyConnection) -> None:
        build(connection)
        put_array(connection, "x", np.random.default_rng(1).random(200_000))

    path = published(folder, make)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(bytes(4096))
    holder = SnapshotHolder(folder)
    with holder.pin() as served:
        assert served is not None
        with pytest.raises(SbError, match="snapshot 1 is damaged"):
            served.arrays("x")
    holder.close()


def test_open_anomalies_are_held_strongest_first(folder: Path) -> None:
    def make(connection: duckdb.DuckDBPyConnection) -> None:
        build(connection)
        connection.execute(
            "create table skill_anomalies (skill_name VARCHAR, anomaly_type VARCHAR,"
            " metric VARCHAR, window_start TIMESTAMP, window_end TIMESTAMP, n BIGINT,"
            " baseline_value DOUBLE, observed_value DOUBLE, deviation_score DOUBLE,"
            " p_value DOUBLE, q_value DOUBLE, detected_at TIMESTAMP, resolved_at TIMESTAMP)"
        )
        at = datetime(2026, 11, 22, 11)
        for name, score, resolved in (("a", 2.0, None), ("b", -5.0, None), ("c", 9.0, at)):
            connection.execute(
                "insert into skill_anomalies values"
                " ($name, 'drop', 'completion', $at, $at, 20, .9, 'nan', $score, .01, .02, $at,"
                " $resolved)",
                {"name": name, "score": score, "at": at, "resolved": resolved},
            )

    published(folder, make)
    holder = SnapshotHolder(folder)
    assert holder.current is not None
    first, second = holder.current.anomalies
    assert (first.skill_name, second.skill_name) == ("b", "a")
    assert first.window_start == first.detected_at == "2026-11-22T11:00:00.000000+00:00"
    assert first.observed_value is None
    holder.close()


def test_the_schema_version_is_pinned() -> None:
    """A change of the tables' form must be a decision, not an accident."""
    assert snapshot.SCHEMA_VERSION == 1
