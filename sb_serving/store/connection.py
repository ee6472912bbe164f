"""How `skills.db` is opened, how writers take turns, and what its errors mean.

Everything that touches the file opens it here, so that the pragmas, the wait for a lock and the
messages are the same everywhere. What is written and read lives in `recorder`, `reader`, `migrate`
and `backups`.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from urllib.parse import quote

from sb_serving.errors import SbError

BUSY_SECONDS = 30.0
"""How long a writer waits for the database before it gives up with a message."""

LOOK_SECONDS = 2.0
"""How long a command waits that only looks: somebody sits before it."""

CHECKPOINT_PAGES = 4_000
"""Pages of the log of changes (16 MB) before it is written back. A commit touches some 24 pages,
many of them the same each time; SQLite's own 1,000 make single commits a third slower."""


def connect(path: Path, *, synchronous: str = "NORMAL") -> sqlite3.Connection:
    """Open a database for writing, without implicit transactions.

    Opening changes nothing in a file that is there: it may turn out to be another program's. WAL
    mode is set by `use_wal` once the file is known to be ours.

    Raises:
        SbError: The file cannot be opened or is not an SQLite database.
    """
    with explained(path):
        connection = sqlite3.connect(
            f"file:{quote(str(path))}",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            connection.execute(f"pragma synchronous = {synchronous}")
            connection.execute(f"pragma wal_autocheckpoint = {CHECKPOINT_PAGES}")
            connection.execute("pragma foreign_keys = on")
            connection.execute("select count(*) from sqlite_master").fetchone()
        except BaseException:
            connection.close()
            raise
    return connection


def use_wal(connection: sqlite3.Connection, path: Path) -> None:
    """Switch a database to WAL mode, where it is not: readers and the writer then do not wait.

    Raises:
        SbError: Another program holds the database.
    """
    with explained(path):
        if connection.execute("pragma journal_mode").fetchone()[0] != "wal":
            with write_turn(path):
                connection.execute("pragma journal_mode = wal")


def connect_readonly(path: Path, *, wait: float | None = None) -> sqlite3.Connection:
    """Open a database for reading only; never creates a file.

    Args:
        path: The file.
        wait: Seconds to wait where another program keeps every reader out; default BUSY_SECONDS.

    Raises:
        SbError: There is no such file, it is not an SQLite database, or it stayed locked.
    """
    if not path.exists():
        raise missing(path)
    seconds = BUSY_SECONDS if wait is None else wait
    with explained(path, seconds):
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode=ro",
            uri=True,
            timeout=seconds,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            connection.execute("select count(*) from sqlite_master").fetchone()
        except BaseException:
            connection.close()
            raise
    return connection


def missing(path: Path) -> SbError:
    """The answer where there is no database yet."""
    return SbError(
        f"there is no database at {path}",
        fix="Make one with `sb ingest claude-code` or `sb demo`, or name another with --db.",
    )


@contextmanager
def explained(path: Path, seconds: float | None = None) -> Iterator[None]:
    """Turn what SQLite says about a file into a message for the user.

    Args:
        path: The file.
        seconds: How long a lock was waited for; default BUSY_SECONDS.

    Raises:
        SbError: SQLite could not read or write the file. A violated constraint is a programming
            error and passes.
    """
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise
    except sqlite3.DatabaseError as error:
        raise meaning(path, error, seconds) from error


def meaning(path: Path, error: sqlite3.Error, seconds: float | None = None) -> SbError:
    """What an error of SQLite's means for the user, and the way out."""
    text = str(error)
    words, message, fix = next(
        meaning for meaning in _MEANINGS if any(word in text for word in meaning[0])
    )
    waited = BUSY_SECONDS if seconds is None else seconds
    values = {"path": path, "text": text, "seconds": waited}
    message, fix = message.format(**values), fix.format(**values)
    backups = sorted(path.parent.glob(f"{escape(path.name)}.backup-*Z"))
    if "malformed" in words and backups:
        fix = f"Its newest backup: run `sb migrate restore {backups[-1]} --db {path}`."
    return SbError(message, fix=fix)


_MEANINGS = (
    (
        ("not a database", "malformed"),
        "{path} is not a readable SQLite database ({text})",
        "There is no backup beside it; name another database with --db.",
    ),
    (
        ("locked", "busy"),
        "{path} stayed locked by another program for {seconds:g} s",
        "Find it with `fuser {path}` and try again.",
    ),
    (
        ("is full",),
        "the disk under {path} is full",
        "Nothing was changed; make room and try again.",
    ),
    (
        ("readonly", "read-only"),
        "{path} cannot be written: the file, its folder or its disk is read-only",
        "Change its permissions, or name another database with --db.",
    ),
    (
        ("disk I/O error",),
        "{path} cannot be read or written ({text})",
        "Nothing was changed. Look for a full or failing disk and for limits on file sizes.",
    ),
    (
        ("no such table", "no such column", "has no column", "already exists"),
        "the tables of {path} are not what they should be ({text})",
        "Nothing was changed; another program altered them. See `sb migrate status`.",
    ),
    (
        ("unable to open",),
        "{path} cannot be opened ({text})",
        "Check the path and the permissions of the file and its folder.",
    ),
    (
        ("",),
        "SQLite refused to go on with {path}: {text}",
        "Nothing was changed; see `sb doctor`.",
    ),
)
"""Words in SQLite's message, what they mean for the user, the way out. The first match holds."""


@contextmanager
def write_turn(path: Path) -> Iterator[None]:
    """Wait for this process's turn to write.

    SQLite's own wait is a poll: among sixteen busy writers some commit once in minutes. An advisory
    lock on a file beside the database queues them. A file that cannot be made (a read-only folder)
    only costs fairness, so that failure is left to SQLite to report.

    Raises:
        SbError: The process whose turn it is did not end it in time.
    """
    descriptor = _lock_file(path)
    if descriptor is None:
        yield
        return
    try:
        _take(descriptor, path)
        yield
    finally:
        os.close(descriptor)


def _lock_file(path: Path) -> int | None:
    try:
        return os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return None


def _take(descriptor: int, path: Path) -> None:
    """Lock a file, in the order of asking, but do not wait for ever.

    A poll would have no order and `flock` has no time limit, so a thread waits where there is a
    queue. One that is given up ends when the lock's holder does; the lock it gets then is gone with
    the file that the caller has closed.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    except BlockingIOError:
        pass
    except OSError:
        return  # a file system without locks: SQLite's own wait has to do
    taken = threading.Event()

    def wait() -> None:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        taken.set()

    threading.Thread(target=wait, daemon=True).start()
    if not taken.wait(BUSY_SECONDS):
        raise meaning(path, sqlite3.OperationalError("locked"))


@contextmanager
def transaction(connection: sqlite3.Connection, path: Path) -> Iterator[None]:
    """One write transaction: taken in turn, committed at the end, rolled back on any error.

    Raises:
        SbError: The database stayed locked, is full, damaged or cannot be written.
    """
    with write_turn(path), explained(path):
        connection.execute("begin immediate")
        try:
            yield
            connection.execute("commit")
        except BaseException:
            if connection.in_transaction:
                connection.execute("rollback")
            raise
