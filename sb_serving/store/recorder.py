"""Writes invocations: one at a time as they happen, or many at once.

A record is two rows, the log's and its companion's, in one transaction, under one id. Records with
an id that is already there are dropped, so that hooks, telemetry and transcripts may all report the
same call and a retry is harmless. Checks live in `checks`, opening and turns in `connection`.
"""

from __future__ import annotations

import gc
import itertools
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from operator import attrgetter
from pathlib import Path
from typing import Any

from sb_serving import sql
from sb_serving.errors import SbError
from sb_serving.events import Invocation
from sb_serving.store import checks, migrate, pruning
from sb_serving.store import connection as connections

CHUNK = 100_000
"""Rows per transaction of a bulk import: other writers wait a few seconds at most."""

SET_BASED_FROM = 50
"""Rows from which on one batch is folded as a set: below, dropping the triggers costs more."""


@dataclass(frozen=True, slots=True)
class RecordResult:
    """What became of one record: its id, or the fact that it was there already."""

    id: int | None
    duplicate: bool


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What became of many records.

    Attributes:
        inserted: Rows added.
        duplicates: Rows dropped because they were there already.
        refused: One message per record that a check refused.
        pruned: Records left out because their day was pruned, or an earlier one.
    """

    inserted: int
    duplicates: int
    refused: tuple[str, ...] = ()
    pruned: int = 0


@dataclass(frozen=True, slots=True)
class FileOffset:
    """How far one source file has been read.

    Attributes:
        file_key: Keyed hash of the path (`Identity.path`).
        source: The parser's name.
        offset: Bytes; reading starts here next time.
        size: Bytes the file had.
        mtime_ns: Its modification time.
        fingerprint: Hash of its first bytes: tells another file under the same path.
    """

    file_key: str
    source: str
    offset: int
    size: int
    mtime_ns: int
    fingerprint: str


class Store:
    """An open `skills.db`, for writing.

    Use it as a context manager. One `Store` serves one thread; any number of processes may have
    one each.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.connection = connection
        self.path = path

    @classmethod
    def open(cls, path: Path | str, *, create: bool = False, synchronous: str = "NORMAL") -> Store:
        """Open an event store at the latest schema version.

        Args:
            path: The file.
            create: Make it (and its folder) if it is not there, and bring a file that this program
                made to the latest version.
            synchronous: NORMAL or FULL.

        Raises:
            SbError: No such file, not a database, or of a version that cannot be written.
        """
        path = Path(path)
        if not create and not path.exists():
            raise connections.missing(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SbError(f"{path.parent} cannot be made: {error}") from error
        connection = connections.connect(path, synchronous=synchronous)
        try:
            status = migrate.status(connection, path)
            if status.pending and create and status.created_here:
                migrate.up(connection, path)
            elif status.pending:
                raise SbError(
                    f"{path} is at schema version {status.version}, {migrate.LATEST} is needed",
                    fix=f"Run `sb migrate up --db {path}`; it makes a backup first.",
                )
            connections.use_wal(connection, path)
        except BaseException:
            connection.close()
            raise
        return cls(connection, path)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the store cannot be used afterwards."""
        self.connection.close()

    def is_empty(self) -> bool:
        """Whether nothing was ever recorded here."""
        return self.connection.execute("select 1 from skill_invocation limit 1").fetchone() is None

    def record(self, invocation: Invocation) -> RecordResult:
        """Store one invocation; committed when this returns.

        Raises:
            SbError: A field is refused, its day was pruned, or the database cannot be written.
        """
        accepted = checks.checked(invocation, latest=checks.latest_allowed())
        with connections.transaction(self.connection, self.path):
            if not self._not_pruned([accepted]):
                raise SbError(
                    f"invoked_at = {accepted.invoked_at}: events up to "
                    f"{pruning.pruned_through(self.connection)} were pruned",
                    fix="It may have been counted before it was pruned; nothing was stored.",
                )
            return self._insert(accepted)

    def import_batch(
        self, invocations: Sequence[Invocation], *, offset: FileOffset | None = None
    ) -> ImportResult:
        """Store a batch and, in the same transaction, how far its file was read.

        A record that a check refuses is reported and left out; the others are stored.
        """
        accepted, refused = _checked(invocations)
        with connections.transaction(self.connection, self.path):
            kept = self._not_pruned(accepted)
            if len(kept) < SET_BASED_FROM:
                inserted = sum(not self._insert(one).duplicate for one in kept)
            else:
                inserted = self._insert_set(kept)
            if offset is not None:
                self.connection.execute(
                    "insert or replace into ingest_file values (?, ?, ?, ?, ?, ?)",
                    (
                        offset.source,
                        offset.file_key,
                        offset.offset,
                        offset.size,
                        offset.mtime_ns,
                        offset.fingerprint,
                    ),
                )
        pruned = len(accepted) - len(kept)
        return ImportResult(inserted, len(kept) - inserted, tuple(refused), pruned)

    def bulk_import(self, invocations: Iterable[Invocation]) -> ImportResult:
        """Store very many invocations, a chunk a transaction.

        Running it again after a crash drops what is there and adds the rest. A record that a check
        refuses is reported and left out.
        """
        inserted = duplicates = pruned = 0
        refused: list[str] = []
        # Room for a chunk's pages, and for staging it, which else writes a third more to the disk.
        self.connection.execute("pragma cache_size = -200000")
        self.connection.execute("pragma temp_store = memory")
        with _collector_paused():
            for chunk in _chunks(invocations):
                accepted, wrong = _checked(chunk)
                refused += wrong
                with connections.transaction(self.connection, self.path):
                    kept = self._not_pruned(accepted)
                    new = self._insert_set(kept)
                inserted += new
                duplicates += len(kept) - new
                pruned += len(accepted) - len(kept)
        return ImportResult(inserted, duplicates, tuple(refused), pruned)

    def file_offsets(self, source: str) -> dict[str, FileOffset]:
        """How far each file of a source has been read, by file key."""
        rows = self.connection.execute(
            "select file_key, source, offset, size, mtime_ns, fingerprint from ingest_file"
            " where source = ?",
            (source,),
        )
        return {row[0]: FileOffset(*row) for row in rows}

    def _not_pruned(self, invocations: list[Invocation]) -> list[Invocation]:
        """Those of days after the mark: what was pruned must not come back and count twice."""
        through = pruning.pruned_through(self.connection)
        if through is None:
            return invocations
        return [one for one in invocations if one.invoked_at[:10] > through]

    def _insert(self, invocation: Invocation) -> RecordResult:
        execute = self.connection.execute
        row: dict[str, Any] = dict(zip(_COLUMNS, _values(invocation), strict=True))
        if row["event_id"] is None:
            found = execute(sql.load("store/same_row.sql"), row).fetchone()
            if found is not None:
                return RecordResult(found[0], duplicate=True)
        row["id"] = execute(sql.load("store/next_id.sql")).fetchone()[0]
        if not execute(sql.load("store/insert_companion.sql"), row).rowcount:
            return RecordResult(None, duplicate=True)
        execute(sql.load("store/insert_invocation.sql"), row)
        return RecordResult(row["id"], duplicate=False)

    def _insert_set(self, invocations: list[Invocation]) -> int:
        """Insert many rows as one set, inside the caller's transaction; returns how many were new.

        Our triggers are dropped, the rows inserted, the aggregates folded once and the triggers
        made again (SQLite's DDL is transactional: nobody sees them gone). A trigger that somebody
        else put on the log stays and fires.
        """
        execute = self.connection.execute
        for table in _STAGED:
            execute(f"drop table if exists temp.{table}")
        for statement in migrate.statements(sql.load("store/bulk_staging.sql")):
            execute(statement)
        self.connection.executemany(_STAGE, map(_values, invocations))
        for statement in migrate.statements(sql.load("store/bulk_copies.sql")):
            execute(statement)
        new = int(execute("select count(*) from temp.incoming").fetchone()[0])
        if new:
            ours = migrate.trigger_names()
            triggers = dict(
                execute(
                    "select name, sql from sqlite_master"
                    " where type = 'trigger' and tbl_name = 'skill_invocation'"
                ).fetchall()
            )
            replaced = [name for name in ours if name in triggers]
            for name in replaced:
                execute(f'drop trigger "{name}"')
            base = execute(sql.load("store/next_id.sql")).fetchone()[0] - 1
            for statement in migrate.statements(sql.load("store/bulk_insert.sql")):
                execute(statement, {"base": base} if ":base" in statement else {})
            for name in replaced:
                execute(triggers[name])
        for table in _STAGED:
            execute(f"drop table temp.{table}")
        return new


_STAGED = ("incoming", "incoming_skill", "incoming_path", "incoming_error")
_FIELDS = tuple(field.name for field in fields(Invocation))
_COLUMNS = (*_FIELDS, "completed", "ended_at")
_fields_of = attrgetter(*_FIELDS)
_quoted = ", ".join(f'"{name}"' for name in _COLUMNS)
_marks = ", ".join("?" * len(_COLUMNS))
_STAGE = f"insert into temp.incoming ({_quoted}) values ({_marks})"  # noqa: S608 - our own names


def _values(invocation: Invocation) -> tuple[Any, ...]:
    """One checked record as values, in the order of `_COLUMNS`."""
    ended_at = invocation.invoked_at
    if invocation.duration_seconds:
        # As `Invocation.ended_at`, in a third of the time: the text is canonical here.
        start = datetime.fromisoformat(ended_at[:26])
        end = start + timedelta(seconds=invocation.duration_seconds)
        ended_at = end.isoformat(timespec="microseconds") + "+00:00"
    return (*_fields_of(invocation), invocation.outcome == "completed", ended_at)


def _checked(invocations: Iterable[Invocation]) -> tuple[list[Invocation], list[str]]:
    accepted, refused = [], []
    for invocation in invocations:
        try:
            accepted.append(checks.checked(invocation))
        except SbError as error:
            refused.append(str(error))
    return accepted, refused


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Without Python's search for cycles: rows have none, and it takes a tenth of an import."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _chunks(invocations: Iterable[Invocation]) -> Iterator[list[Invocation]]:
    iterator = iter(invocations)
    while chunk := list(itertools.islice(iterator, CHUNK)):
        yield chunk
