"""Brings things back from a backup: the whole file, or what a way down took from it.

Here: what must hold before a backup may replace `skills.db`, and which of its rows can be joined
again after a way down to V3 and up. How a backup is made lives in `backups`, what a version is in
`migrate`.
"""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from sb_serving import sql, times
from sb_serving.errors import SbError
from sb_serving.store import backups, migrate
from sb_serving.store import connection as connections

WAIT_SECONDS = 2.0
"""How long a restore waits for other processes: a hook is done by then, a server never is."""


@dataclass(frozen=True, slots=True)
class Backup:
    """One finished backup.

    Attributes:
        path: The file.
        made_at: When, canonical UTC text, from its name.
        version: Its schema version; None where it cannot be read.
        bytes: Its size.
    """

    path: Path
    made_at: str
    version: int | None
    bytes: int


@dataclass(frozen=True, slots=True)
class Returned:
    """What came back beside the log's rows.

    Attributes:
        companions: Rows of the log that have their companion again.
        without: Rows of the log that have none, also now.
        offsets: Source files whose reading position is known again.
        authored: Rows of experiments and taxonomy.
    """

    companions: int
    without: int
    offsets: int
    authored: int


def listed(path: Path) -> list[Backup]:
    """The backups of a database, oldest first."""
    found = []
    for backup in backups.found(path):
        stamp = backup.name.removeprefix(f"{path.name}.backup-")
        try:
            with closing(connections.connect_readonly(backup)) as connection:
                version: int | None = migrate.status(connection, backup).version
        except SbError:
            version = None
        found.append(Backup(backup, _time_of(stamp), version, backup.stat().st_size))
    return found


def _time_of(stamp: str) -> str:
    try:
        return times.to_utc_text(stamp[:15] + "." + stamp[15:])
    except ValueError:
        return stamp


def verify(backup: Path) -> migrate.Status:
    """Read a backup from end to end.

    Raises:
        SbError: There is no such file, it is damaged, or not an event store of a version we know.
    """
    if not backup.exists():
        raise SbError(
            f"there is no backup at {backup}", fix="`sb migrate status` lists those there are."
        )
    with closing(connections.connect_readonly(backup)) as connection:
        with connections.explained(backup):
            verdict = connection.execute("pragma integrity_check(1)").fetchone()[0]
        if verdict != "ok":
            raise SbError(f"{backup} is damaged: {verdict}", fix="Nothing was changed.")
        status = migrate.status(connection, backup)
    if not status.version:
        raise SbError(f"{backup} is an empty database", fix="Nothing was changed.")
    return status


def whole_file(path: Path, backup: Path) -> Path | None:
    """Put a backup in the place of the database.

    A database that can be read is overwritten in one transaction of SQLite's own: a crash leaves
    the old or the new one. One that cannot be read is moved aside.

    Args:
        path: The database; need not exist.
        backup: What `sb migrate status` lists, or any event store.

    Returns:
        Where the present database is kept; None if there was none.

    Raises:
        SbError: The backup is not good, or another process holds the database; nothing changed.
    """
    verify(backup)
    if path.exists() and path.samefile(backup):
        raise SbError(f"{backup} is the database itself", fix="Name one of its backups.")
    path.parent.mkdir(parents=True, exist_ok=True)
    backups.sweep(path)
    with connections.write_turn(path):
        if not path.exists():
            _move_in(path, backup)
            return None
        try:
            with closing(_alone(path)) as connection:
                kept = backups.make(connection, path)
                _overwrite(connection, path, backup)
        except (sqlite3.DatabaseError, backups.DamagedError) as error:
            if isinstance(error, sqlite3.OperationalError):
                raise connections.meaning(path, error) from error
            kept = path.with_name(f"{path.name}.damaged-{backups.stamp()}")
            _move_in(path, backup, kept)
    return kept


def _alone(path: Path) -> sqlite3.Connection:
    """A connection that nobody else's can be beside.

    Leaving WAL mode is allowed to the only connection; in exclusive mode the lock then stays.

    Raises:
        SbError: Another process holds the database.
        sqlite3.DatabaseError: It cannot be read.
    """
    connection = sqlite3.connect(path, timeout=WAIT_SECONDS, isolation_level=None)
    try:
        connection.execute("pragma locking_mode = exclusive")
        connection.execute("pragma journal_mode = delete")
        connection.execute("begin exclusive")
        connection.execute("commit")
    except sqlite3.DatabaseError as error:
        connection.close()
        if "locked" not in str(error):
            raise
        raise SbError(
            f"{path} is in use by another process",
            fix=f"Stop `sb up`, `sb serve` and the like; `fuser {path}` finds it.",
        ) from error
    return connection


def _overwrite(connection: sqlite3.Connection, path: Path, backup: Path) -> None:
    with closing(connections.connect_readonly(backup)) as source:
        source.backup(connection)
    connection.execute("pragma locking_mode = normal")
    connection.execute("pragma journal_mode = wal")


def _move_in(path: Path, backup: Path, aside: Path | None = None) -> None:
    """Put a copy of the backup at a path where nothing usable is, moving what is there aside."""
    half = path.with_name(f"{path.name}.backup-restore{backups.HALF}")
    with backups.half_made(half, path) as (_, descriptor), connections.explained(path):
        with (
            closing(connections.connect_readonly(backup)) as source,
            closing(sqlite3.connect(half, isolation_level=None)) as copy,
        ):
            source.backup(copy)
            copy.execute("pragma journal_mode = delete")
        os.fsync(descriptor)
        if aside is not None:
            for suffix in backups.BESIDE:
                beside = path.with_name(path.name + suffix)
                if beside.exists():
                    beside.rename(aside.with_name(aside.name + suffix))
        half.replace(path)
        backups.sync_folder(path.parent)


def check_source(backup: Path) -> None:
    """Refuse a backup that has no companions to give back.

    Raises:
        SbError: The backup is not good, or of an earlier version.
    """
    version = verify(backup).version
    if version < migrate.LATEST:
        raise SbError(
            f"{backup} is at version {version}: it has no companions",
            fix=f"Name one at version {migrate.LATEST}; `sb migrate status` lists the backups.",
        )


def companions(connection: sqlite3.Connection, path: Path, backup: Path) -> Returned:
    """Give rows of the log the companions back that a way down to V3 took from them.

    A companion comes back to the row that has its id, skill, session and start; one that the row
    has meanwhile stays. With the event ids a copy is known as a copy again. How far source files
    were read comes back, and experiments and taxonomy where there are none.

    Args:
        connection: Opened by `connection.connect`, at the latest version.
        path: The database.
        backup: A backup at the latest version.

    Raises:
        SbError: The backup is not good or of an earlier version; nothing changed.
    """
    check_source(backup)
    execute = connection.execute
    execute("attach ? as backup", (f"file:{quote(str(backup))}?mode=ro",))
    try:
        with connections.transaction(connection, path):
            counts = {
                part: _run(connection, f"store/return_{part}.sql")
                for part in ("companions", "offsets", "authored")
            }
            migrate.count_hours_anew(connection)
            # Whoever follows the file takes this as a migration and reads old rows again.
            execute(
                "update skill_migrations set applied_at = ? where version = ?",
                (times.now_text(), migrate.migrations()[-1].stem),
            )
            without = execute(sql.load("store/without_companion.sql")).fetchone()[0]
    finally:
        execute("detach backup")
    return Returned(without=without, **counts)


def _run(connection: sqlite3.Connection, name: str) -> int:
    """Run a script; returns how many rows its plain inserts added."""
    added = 0
    for statement in migrate.statements(sql.load(name)):
        changed = connection.execute(statement).rowcount
        if re.search(r"^insert into|into main.ingest_file", statement, flags=re.M):
            added += changed
    return added
