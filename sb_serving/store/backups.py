"""Copies of `skills.db` beside it: made, verified, found, and cleared away when half made.

A backup is one closed file, `skills.db.backup-20261122T120000123456Z`: no log of changes belongs
to it, so that it can be moved with `mv`. It is built as `.tmp`, verified, written through to the
disk and only then renamed: what has a backup's name is a good one. What a backup means for the
schema lives in `migrate`; what is brought back from one in `restore`.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from glob import escape
from pathlib import Path

from sb_serving import times
from sb_serving.errors import SbError
from sb_serving.store import connection as connections

HALF = ".tmp"
"""Ends the name of a backup that is being made."""

BESIDE = ("-wal", "-shm", "-journal", "")
"""What a database's name ends in, and those of the files that belong to it; the logs first, so that
one is never left to be replayed into the next file of the name."""


class DamagedError(SbError):
    """The database that was to be copied does not pass SQLite's integrity check."""


def make(connection: sqlite3.Connection, path: Path) -> Path:
    """Copy the database beside itself with SQLite's backup API and verify the copy.

    Args:
        connection: An open connection to the database, not inside a write transaction.
        path: The database.

    Raises:
        DamagedError: The copy does not pass SQLite's integrity check.
        SbError: The database cannot be read or the copy cannot be written; nothing is left of it.
    """
    sweep(path)
    while (target := path.with_name(f"{path.name}.backup-{stamp()}")).exists():
        pass  # a clock that was set back: take the next microsecond
    with half_made(target.with_name(target.name + HALF), path) as (half, descriptor):
        with connections.explained(path):
            _copy(connection, half, path)
        os.fsync(descriptor)
        half.rename(target)
        sync_folder(path.parent)
    return target


@contextmanager
def half_made(half: Path, path: Path) -> Iterator[tuple[Path, int]]:
    """An empty file for a copy of the database at `path`, removed unless it is renamed.

    Yields:
        The file and its descriptor, locked: that tells `sweep` that somebody is at work on it.

    Raises:
        SbError: The folder takes no new file.
    """
    try:
        descriptor = os.open(half, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SbError(
            f"no copy can be made beside {path}: {error.strerror}",
            fix="Nothing was changed. Make its folder writable.",
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield half, descriptor
    finally:
        remove(half)
        os.close(descriptor)


def stamp() -> str:
    """The current time as it stands in the names of files."""
    return times.now().strftime("%Y%m%dT%H%M%S%fZ")


def found(path: Path) -> list[Path]:
    """The finished backups of a database, oldest first."""
    return sorted(path.parent.glob(f"{escape(path.name)}.backup-*Z"))


def sweep(path: Path) -> None:
    """Remove what is left of backups whose makers died."""
    for half in path.parent.glob(f"{escape(path.name)}.backup-*{HALF}"):
        try:
            descriptor = os.open(half, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(half)
        except BlockingIOError:
            pass  # its maker is alive
        finally:
            os.close(descriptor)


def remove(half: Path) -> None:
    """Remove a copy that is not finished, with the files that SQLite may have left beside it."""
    for suffix in BESIDE:
        half.with_name(half.name + suffix).unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Write a folder's entries through to the disk, so that a rename survives a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _copy(connection: sqlite3.Connection, half: Path, path: Path) -> None:
    with closing(sqlite3.connect(half, isolation_level=None)) as copy:
        connection.backup(copy)
        # A copy of a file in WAL mode is in WAL mode: reading it would leave files beside it.
        copy.execute("pragma journal_mode = delete")
        verdict = copy.execute("pragma integrity_check(1)").fetchone()[0]
    if verdict != "ok":
        raise DamagedError(
            f"{path} is damaged, so no backup was made: {verdict}",
            fix="Nothing was changed. Bring an earlier backup back with `sb migrate restore`.",
        )
