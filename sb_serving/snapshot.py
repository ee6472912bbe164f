"""The snapshot: one closed, immutable DuckDB file of results, and how both sides handle it.

Everything about the file as a file belongs here: how it is published so that a half-built one is
never seen, and how it is opened, checked, pinned and swapped while it is read. What goes into it is
decided in `sb_pipelines.defs.publish`; what is answered from it in `answers/`.

A folder holds `000042.duckdb` and its neighbours; the highest number wins. File names are never
used twice, because DuckDB serves a replaced file from its cache of the old one.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from sb_serving import sql, times
from sb_serving.errors import SbError, no_room
from sb_serving.frame import Anomaly, Total, TotalKey

SCHEMA_VERSION = 1
"""Raise it when a table changes so that older serving code would read it wrongly."""

THREADS = 2
MEMORY_LIMIT = "512MB"
PUBLISH_WAIT_SECONDS = 30.0
"""How long a publish waits for another process that publishes into the same folder."""

_HEADER_BYTES = 3 * 4096
_NAME = re.compile(r"(\d{6,})\.duckdb\Z")
_ARRAY_KINDS = "biuf"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a snapshot says about itself.

    Attributes:
        schema_version: Form of the tables, see `SCHEMA_VERSION`.
        number: Its number, also its file name.
        watermark_id: Every invocation up to this id is in it.
        watermark_at: Latest start among them, canonical text; None where there is none.
        published_at: When it was built, canonical text.
        code_version: Version of the program that built it.
        table_counts: Table -> rows.
        invalid_rows: Invocations up to the watermark whose start cannot be read.
        out_of_range_rows: Those that lie outside the days that are computed.
    """

    schema_version: int
    number: int
    watermark_id: int
    watermark_at: str | None
    published_at: str
    code_version: str
    table_counts: Mapping[str, int]
    invalid_rows: int
    out_of_range_rows: int


# --- publishing -----------------------------------------------------------------------------------


def publish(
    build: Callable[[duckdb.DuckDBPyConnection], None],
    folder: Path,
    *,
    watermark_id: int,
    watermark_at: datetime | None,
    published_at: datetime,
    code_version: str,
    invalid_rows: int = 0,
    out_of_range_rows: int = 0,
    keep: int = 3,
) -> Path:
    """Build the next snapshot and make it visible in one step.

    A crash at any point leaves at most a `.tmp-*` file, which the next publish removes.

    Args:
        build: Makes the tables, inside a transaction that is already open; it may ATTACH other
            files (that nobody in this process has open), but must not commit.
        folder: Where snapshots live; made if it is not there.
        watermark_id: Every invocation up to this id is in the tables.
        watermark_at: Latest start among them.
        published_at: The time now.
        code_version: Version of the program.
        invalid_rows: See `Manifest`.
        out_of_range_rows: See `Manifest`.
        keep: How many snapshots stay, the new one included; at least 1.

    Returns:
        The path of the new snapshot.

    Raises:
        SbError: Another process is publishing there, the folder cannot be written, or the file
            does not pass the check that serving makes. No snapshot was added.
    """
    if keep < 1:
        raise SbError(f"keep = {keep}: at least 1 snapshot must stay")
    with _publishing(folder):
        _sweep(folder)
        number = max(_numbers(folder), default=0) + 1
        building = folder / f".tmp-{_file_name(number)}"
        try:
            _build(
                build,
                building,
                {
                    "schema_version": SCHEMA_VERSION,
                    "number": number,
                    "watermark_id": watermark_id,
                    "watermark_at": _naive(watermark_at),
                    "published_at": _naive(published_at),
                    "code_version": code_version,
                    "invalid_rows": invalid_rows,
                    "out_of_range_rows": out_of_range_rows,
                },
            )
            Snapshot.open(building, number).close()
            _sync(building)
            target = folder / _file_name(number)
            building.rename(target)
            _sync(folder)
        except BaseException:
            _sweep(folder)
            raise
        for old in sorted(_numbers(folder))[:-keep]:
            (folder / _file_name(old)).unlink(missing_ok=True)
    return target


@contextmanager
def _publishing(folder: Path) -> Iterator[None]:
    """Be the only publisher of a folder; the kernel frees the lock of a process that dies."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SbError(
            f"{folder} cannot be written: {error.strerror}",
            fix="Check its permissions, or name another folder with SB_SNAPSHOTS.",
        ) from error
    try:
        _take_turn(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _take_turn(descriptor: int, folder: Path) -> None:
    end = time.monotonic() + PUBLISH_WAIT_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= end:
                raise SbError(
                    f"another process has been publishing into {folder} for "
                    f"{PUBLISH_WAIT_SECONDS:g} s",
                    fix=f"Wait until it is done; `fuser {folder / '.lock'}` finds it.",
                ) from None
        time.sleep(0.05)


def _sweep(folder: Path) -> None:
    """Remove half-built files. The caller is the only publisher, so nobody is building them."""
    for path in folder.glob(".tmp-*"):
        path.unlink(missing_ok=True)


def _build(
    build: Callable[[duckdb.DuckDBPyConnection], None], path: Path, manifest: dict[str, Any]
) -> None:
    connection = duckdb.connect(str(path))
    try:
        connection.execute("set TimeZone = 'UTC'")
        connection.begin()
        build(connection)
        counts = json.dumps(_count_tables(connection), sort_keys=True)
        connection.execute(sql.load("live/manifest.sql"))
        connection.execute(sql.load("live/manifest_row.sql"), manifest | {"table_counts": counts})
        connection.commit()
        connection.execute("checkpoint")
    except duckdb.Error as error:
        if not no_room(error):
            raise
        raise SbError(
            f"the snapshot {path} cannot be written: {_first_line(error)}",
            fix="The last one is served on; make room on the disk and try again.",
        ) from error
    finally:
        connection.close()
    if Path(f"{path}.wal").exists():
        raise SbError(f"{path.name} was closed with a .wal beside it", fix="Publish again.")


def _count_tables(connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    names = connection.execute(
        "select table_name from duckdb_tables() where database_name = current_database()"
        " and schema_name = 'main' and table_name <> 'manifest'"
    ).fetchall()
    counts = {}
    for (name,) in names:
        # Not by `fetchone`: since DuckDB 2.0 that leaves the result open.
        ((rows,),) = connection.execute(f'select count(*) from "{name}"').fetchall()  # noqa: S608
        counts[str(name)] = int(rows)
    return counts


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _naive(moment: datetime | None) -> datetime | None:
    """As DuckDB's TIMESTAMP wants it: UTC without saying so."""
    return (
        None if moment is None else times.from_text(times.to_utc_text(moment)).replace(tzinfo=None)
    )


def put_array(connection: duckdb.DuckDBPyConnection, name: str, array: NDArray[Any]) -> None:
    """Store a numeric array as one row of the table `arrays`, which is made if it is not there.

    One row per array, because twenty million rows take seconds to read and a blob does not.

    Raises:
        ValueError: The array is not of plain numbers.
    """
    if array.dtype.kind not in _ARRAY_KINDS:
        raise ValueError(f"array {name!r} has dtype {array.dtype}; only plain numbers are stored")
    array = np.asarray(array, dtype=array.dtype.newbyteorder("<"))
    connection.execute(sql.load("live/arrays.sql"))
    connection.execute(
        "insert into arrays values (?, ?, ?, ?)",
        [name, array.dtype.str, list(array.shape), array.tobytes()],
    )


# --- reading --------------------------------------------------------------------------------------


class Snapshot:
    """One open snapshot.

    What its attributes hold is in memory and stays readable after it was closed; `query` and
    `arrays` need it pinned (`SnapshotHolder.pin`).

    Attributes:
        manifest: What it says about itself.
        totals: Its `skill_totals`.
        anomalies: Its open anomalies, strongest first.
        watermarks: Table -> the id up to which it knows every invocation, and when it was computed
            (canonical text); tables that were computed only.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        manifest: Manifest,
        totals: Mapping[TotalKey, Total],
        anomalies: tuple[Anomaly, ...],
        watermarks: Mapping[str, tuple[int, str | None]],
    ) -> None:
        self.manifest = manifest
        self.watermarks = watermarks
        self.totals = totals
        self.anomalies = anomalies
        self._connection = connection
        self._readers = 0
        self._retired = False

    @classmethod
    def open(cls, path: Path, number: int) -> Snapshot:
        """Open a file, check it and load its small tables.

        Raises:
            SbError: It is damaged, half written, of another number or of a newer form.
        """
        try:
            connection = _connect(path)
        except (duckdb.Error, OSError) as error:
            raise SbError(_first_line(error)) from error
        try:
            manifest = _read_manifest(connection)
            _check(connection, path, number, manifest)
            return cls(
                connection,
                manifest,
                MappingProxyType(_read_totals(connection)),
                _read_anomalies(connection, manifest),
                MappingProxyType(_read_watermarks(connection, manifest)),
            )
        except duckdb.Error as error:
            connection.close()
            raise SbError(_first_line(error)) from error
        except BaseException:
            connection.close()
            raise

    def query(self, query: str, parameters: Mapping[str, Any] | None = None) -> list[Any]:
        """Run a query and return its rows; any number of threads may do so at once.

        Args:
            query: SQL with `$named` parameters.
            parameters: Their values.
        """
        with self._connection.cursor() as cursor:
            return cursor.execute(query, dict(parameters or {})).fetchall()

    def rows(self, query: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Run a query and return its rows by column name.

        Args:
            query: SQL with `$named` parameters; those that it does not name are left out.
            parameters: Their values.
        """
        used = {name: value for name, value in (parameters or {}).items() if f"${name}" in query}
        with self._connection.cursor() as cursor:
            return _rows(cursor, query, used)

    def columns(self, query: str) -> dict[str, NDArray[Any]]:
        """Run a query of numbers and return its columns as arrays, by name.

        Raises:
            SbError: A column has an unknown value.
        """
        with self._connection.cursor() as cursor:
            found = cursor.execute(query).fetchnumpy()
        for name, column in found.items():
            if np.ma.isMaskedArray(column):
                raise SbError(f"{name} of snapshot {self.manifest.number} has unknown values")
        return found

    def arrays(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Read the arrays whose names begin so, by name; they are read-only.

        All in one pass: DuckDB reads past the large ones for each that is asked for by itself.

        Raises:
            SbError: They cannot be read, or the bytes of one do not fit its shape.
        """
        if "arrays" not in self.manifest.table_counts:
            return {}
        try:
            rows = self.query(
                "select name, dtype, shape, data from arrays where starts_with(name, $prefix)",
                {"prefix": prefix},
            )
        except duckdb.Error as error:
            raise self._damaged(f"{prefix}*", _first_line(error)) from error
        found = {}
        for name, dtype, shape, data in rows:
            try:
                kind = np.dtype(str(dtype))
                if kind.kind not in _ARRAY_KINDS:
                    raise ValueError(f"dtype {kind}")
                found[name] = np.frombuffer(data, dtype=kind).reshape(shape)
            except (TypeError, ValueError) as error:
                raise self._damaged(name, str(error)) from error
        return found

    def _damaged(self, name: str, problem: str) -> SbError:
        return SbError(
            f"array {name!r} of snapshot {self.manifest.number} is damaged: {problem}",
            fix="Run `sb refresh --models`.",
        )

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


class SnapshotHolder:
    """Serves the newest good snapshot of a folder and changes over to newer ones.

    Any number of threads may pin and poll. A snapshot that fails its check is refused, and the one
    before serves on.

    Args:
        folder: Where snapshots are published; need not be there yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._polling = threading.Lock()
        self._current: Snapshot | None = None
        self._seen: frozenset[str] | None = None
        self._refused: dict[str, str] = {}
        self.poll()

    @property
    def current(self) -> Snapshot | None:
        """The snapshot in use, for what it holds in memory; pin it to query the file."""
        return self._current

    @property
    def refused(self) -> tuple[str, ...]:
        """Why newer snapshots are not served, one `file: reason` each, the newest last."""
        return tuple(f"{name}: {reason}" for name, reason in sorted(self._refused.items()))

    @contextmanager
    def pin(self) -> Iterator[Snapshot | None]:
        """The snapshot in use, kept open until the block ends; None while there is none."""
        with self._lock:
            snapshot = self._current
            if snapshot is not None:
                snapshot._readers += 1
        try:
            yield snapshot
        finally:
            if snapshot is not None:
                self._leave(snapshot)

    def poll(self) -> bool:
        """Look for a newer snapshot and change over to it; costs one listing of the folder.

        Returns:
            Whether another snapshot is served now.
        """
        if not self._polling.acquire(blocking=False):
            return False  # another thread is at it
        try:
            try:
                names = _listing(self.folder)
            except OSError as error:
                self._refused = {str(self.folder): str(error)}
                return False
            if names == self._seen:
                return False
            found = self._newest(names)
            self._seen = names
            if found is None or found is self._current:
                return False
            self._swap(found)
            return True
        finally:
            self._polling.release()

    def close(self) -> None:
        """Stop serving; the file is closed when its last reader leaves."""
        self._swap(None)

    def _newest(self, names: frozenset[str]) -> Snapshot | None:
        """The highest snapshot that passes its check; None where there is none."""
        refused: dict[str, str] = {}
        found = None
        for number in sorted(_numbers_in(names), reverse=True):
            name = _file_name(number)
            if self._current is not None and self._current.manifest.number == number:
                found = self._current
                break
            if name in self._refused:  # files are immutable: it is as bad as it was
                refused[name] = self._refused[name]
                continue
            try:
                found = Snapshot.open(self.folder / name, number)
                break
            except SbError as error:
                log.error("snapshot %s is refused: %s", self.folder / name, error)
                refused[name] = str(error)
        self._refused = refused
        return found

    def _swap(self, snapshot: Snapshot | None) -> None:
        with self._lock:
            old, self._current = self._current, snapshot
            if old is None:
                return
            old._retired = True
            idle = old._readers == 0
        if idle:
            old.close()

    def _leave(self, snapshot: Snapshot) -> None:
        with self._lock:
            snapshot._readers -= 1
            idle = snapshot._retired and snapshot._readers == 0
        if idle:
            snapshot.close()


def watermarks_in(folder: Path) -> list[int]:
    """The watermark of each snapshot in a folder that can be read, the oldest first."""
    found = []
    for number in sorted(_numbers(folder)):
        try:
            snapshot = Snapshot.open(folder / _file_name(number), number)
        except SbError as error:
            log.warning("%s", error)
            continue
        found.append(snapshot.manifest.watermark_id)
        snapshot.close()
    return found


def _file_name(number: int) -> str:
    return f"{number:06d}.duckdb"


def _listing(folder: Path) -> frozenset[str]:
    try:
        return frozenset(path.name for path in folder.iterdir() if _NAME.match(path.name))
    except FileNotFoundError:
        return frozenset()  # nothing was published yet


def _numbers_in(names: frozenset[str]) -> list[int]:
    return [int(match[1]) for name in names if (match := _NAME.match(name))]


def _numbers(folder: Path) -> list[int]:
    return _numbers_in(_listing(folder))


def _connect(path: Path) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(
        str(path),
        read_only=True,
        config={
            "threads": THREADS,
            "memory_limit": MEMORY_LIMIT,
            # Reading only is no sandbox: a query could still read other files and load extensions.
            "enable_external_access": "false",
            "lock_configuration": "true",
        },
    )
    try:
        # A file cut short opens as long as its header and catalog are there.
        ((size,),) = connection.execute(
            "select block_size * total_blocks from pragma_database_size()"
        ).fetchall()
        expected = int(size) + _HEADER_BYTES
        if path.stat().st_size < expected:
            raise SbError(f"it has {path.stat().st_size} bytes of {expected}")
    except BaseException:
        connection.close()
        raise
    return connection


def _rows(
    connection: duckdb.DuckDBPyConnection, query: str, parameters: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    result = connection.execute(query, dict(parameters or {}))
    names = [column[0] for column in result.description or ()]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def _read_manifest(connection: duckdb.DuckDBPyConnection) -> Manifest:
    try:
        rows = _rows(connection, "select * from manifest")
    except duckdb.CatalogException:
        raise SbError("it has no manifest: it was not published, or only half written") from None
    if len(rows) != 1:
        raise SbError(f"its manifest has {len(rows)} rows instead of 1")
    row = rows[0]
    version = row.get("schema_version")
    if version != SCHEMA_VERSION:
        newer = isinstance(version, int) and version > SCHEMA_VERSION
        raise SbError(
            f"its schema version is {version}, this program reads {SCHEMA_VERSION}",
            fix="Upgrade this program." if newer else "Run `sb refresh`.",
        )
    try:
        return Manifest(
            schema_version=version,
            number=int(row["number"]),
            watermark_id=int(row["watermark_id"]),
            watermark_at=_text(row["watermark_at"]),
            published_at=times.to_utc_text(row["published_at"]),
            code_version=str(row["code_version"]),
            table_counts=MappingProxyType(dict(json.loads(row["table_counts"]))),
            invalid_rows=int(row["invalid_rows"]),
            out_of_range_rows=int(row["out_of_range_rows"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SbError(f"its manifest cannot be read: {error!r}") from error


def _check(
    connection: duckdb.DuckDBPyConnection, path: Path, number: int, manifest: Manifest
) -> None:
    if manifest.number != number:
        raise SbError(f"its manifest says number {manifest.number}: the file was renamed")
    counts = _count_tables(connection)
    for table in sorted(counts.keys() | manifest.table_counts.keys()):
        has, promised = counts.get(table), manifest.table_counts.get(table)
        if has != promised:
            raise SbError(
                f"table {table} has {'no' if has is None else has} rows,"
                f" its manifest says {'nothing of it' if promised is None else promised}"
            )
    if "skill_totals" not in counts:
        raise SbError("it has no table skill_totals")
    if Path(f"{path}.wal").exists():
        raise SbError("a .wal lies beside it: it was not closed")


def _read_totals(connection: duckdb.DuckDBPyConnection) -> dict[TotalKey, Total]:
    rows = connection.execute(sql.load("live/snapshot_totals.sql")).fetchall()
    return {
        (skill, kind, phase, outcome): Total(n, duration_n, duration_sum, tuple(buckets))
        for skill, kind, phase, outcome, n, duration_n, duration_sum, *buckets in rows
    }


def _read_watermarks(
    connection: duckdb.DuckDBPyConnection, manifest: Manifest
) -> dict[str, tuple[int, str | None]]:
    if "watermarks" not in manifest.table_counts:
        return {}
    rows = connection.execute('select name, id, "at" from watermarks').fetchall()
    return {name: (int(id), _text(at)) for name, id, at in rows}


def _read_anomalies(
    connection: duckdb.DuckDBPyConnection, manifest: Manifest
) -> tuple[Anomaly, ...]:
    if "skill_anomalies" not in manifest.table_counts:
        return ()
    return tuple(Anomaly(**row) for row in _rows(connection, sql.load("live/open_anomalies.sql")))


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else times.to_utc_text(moment)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
