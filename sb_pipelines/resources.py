"""The three files that a run touches, as Dagster resources: event store, warehouse, snapshots.

Here: how each is opened, waited for, found damaged and closed, and the warehouse's watermarks.
What is computed lives in `defs/`, its SQL in `sql/warehouse/`; the event store's own code in
`sb_serving.store`, publishing in `sb_serving.snapshot`.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
from dagster_duckdb import DuckDBResource

from sb_serving import sql
from sb_serving.errors import SbError, no_room
from sb_serving.store import pruning, reader
from sb_serving.store.connection import meaning

WAREHOUSE_VERSION = 3
"""Raised with every change of a table in `sql/warehouse/schema.sql`; a warehouse of another version
is rebuilt."""

POOL = "warehouse"
"""Dagster pool of every asset and check that opens the warehouse: one run at a time."""

RETRIES = dg.RetryPolicy(max_retries=2, delay=1)
"""For what may pass by itself; a problem that the user must mend is not tried again."""

OWNERS = ["team:analytics"]
"""Owners of every asset."""

_log = logging.getLogger(__name__)


class DamagedWarehouse(SbError):
    """The warehouse file turned out to be damaged and was moved aside; the next run rebuilds it."""


@contextmanager
def user_failures(*, retry: bool = False) -> Iterator[None]:
    """Report a problem that a user can mend as one readable line, not as a traceback.

    Args:
        retry: Whether it may pass by itself. That a damaged warehouse was moved aside always may.

    Raises:
        dagster.Failure: In place of an `SbError`.
    """
    try:
        yield
    except SbError as error:
        again = retry or isinstance(error, DamagedWarehouse)
        raise dg.Failure(description=str(error), allow_retries=again) from error


class SkillsDb(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The event store, read only, through the store's own reader.

    Attributes:
        path: The SQLite file.
    """

    path: str

    def exists(self) -> bool:
        """Whether there is a file yet."""
        return Path(self.path).exists()

    def top(self) -> int:
        """The newest invocation's id, 0 for an empty store.

        Raises:
            SbError: No such file, or it is not an event store.
        """
        with self._connection() as connection:
            return reader.max_id(connection)

    def applied_at(self) -> str:
        """When the store's newest migration was applied, in its own words.

        Rows of the past change only then: a way down takes what they have beside them, a way up
        from a backup brings it back.

        Raises:
            SbError: No such file, or it is not an event store.
        """
        with self._connection() as connection:
            return str(
                connection.execute("select max(applied_at) from skill_migrations").fetchone()[0]
            )

    def count_until(self, until: int) -> int:
        """How many invocations have an id of at most `until`, those pruned since among them.

        Counted as all rows less the newer ones: the first comes from the smallest index, the second
        from the end of the table, so that no row of the log itself is read.

        Raises:
            SbError: No such file, or it is not an event store.
        """
        with self._connection() as connection:
            connection.execute("begin")  # pruning moves rows from the one count to the other
            (there,) = connection.execute(
                "select (select count(*) from skill_invocation)"
                " - (select count(*) from skill_invocation where id > :until)",
                {"until": until},
            ).fetchone()
            return int(there) + sum(day.n for day in pruning.pruned_days(connection))

    def pruned_days(self) -> list[pruning.PrunedDay]:
        """The days that were pruned, in order.

        Raises:
            SbError: No such file, or it is not an event store.
        """
        with self._connection() as connection:
            return pruning.pruned_days(connection)

    def has(self, name: str) -> bool:
        """Whether there is a table of that name.

        Raises:
            SbError: No such file, or it is not an event store.
        """
        with self._connection() as connection:
            found = connection.execute(
                "select 1 from sqlite_master where type = 'table' and name = ?", (name,)
            )
            return found.fetchone() is not None

    def table(self, name: str, columns: list[str]) -> list[tuple[Any, ...]]:
        """All rows of a small table.

        Raises:
            SbError: No such file, or it is not an event store.
        """
        listed = ", ".join(f'"{column}"' for column in columns)
        with self._connection() as connection:
            return connection.execute(f'select {listed} from "{name}"').fetchall()  # noqa: S608

    @contextmanager
    def arrow(self, after: int, until: int) -> Iterator[Any]:
        """The rows with `after < id <= until` as an Arrow stream; see `reader.arrow_events`.

        Raises:
            SbError: The file has another form than the latest migration's, or cannot be read.
        """
        with self._streaming(reader.arrow_events(Path(self.path), after, until)) as handle:
            yield handle

    @contextmanager
    def query(self, query: str) -> Iterator[Any]:
        """The rows of a query as an Arrow stream; see `reader.arrow`.

        Raises:
            SbError: The file has another form than the latest migration's, or cannot be read.
        """
        with self._streaming(reader.arrow(Path(self.path), query)) as handle:
            yield handle

    @contextmanager
    def _streaming(self, stream: AbstractContextManager[Any]) -> Iterator[Any]:
        import adbc_driver_manager

        try:
            with stream as handle:
                yield handle
        except adbc_driver_manager.Error as error:
            raise self._unreadable(error) from error
        except duckdb.InvalidInputException as error:
            # The driver's own errors, met while DuckDB was reading the stream.
            if "[SQLite]" not in str(error):
                raise
            raise self._unreadable(error) from error

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with closing(reader.connect_readonly(Path(self.path))) as connection:
            try:
                yield connection
            except sqlite3.DatabaseError as error:
                raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> SbError:
        text = _first_line(error)
        if "no such table" in text or "no such column" in text:
            return SbError(
                f"{self.path} is not an event store of this program's form ({text})",
                fix=f"Run `sb migrate up --db {self.path}`, or name another file.",
            )
        if "malformed" in text or "not a database" in text:
            return meaning(Path(self.path), sqlite3.DatabaseError(text))
        return SbError(f"{self.path} cannot be read: {text}", fix="Run `sb doctor`.")


class Warehouse(DuckDBResource):
    """The DuckDB file of the batch side: one writer at a time, rebuilt from `skills.db` when lost.

    `DuckDBResource` leaves the connection open when an asset raises, always takes the write lock,
    and on a locked file sleeps up to 102 s without a word. This closes, can open for reading, and
    waits for a bounded time with a message that names the file and its holder.

    Attributes:
        database: The file.
        wait_seconds: How long to wait for another process to close it.
        connection_config: DuckDB's settings. Nothing is ever downloaded; memory beyond the limit
            spills to disk.
    """

    wait_seconds: float = 120.0
    connection_config: dict[str, Any] = {  # noqa: RUF012 (a pydantic field, copied per instance)
        "autoinstall_known_extensions": "false",
        "memory_limit": "2GB",
    }

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self.database)

    @contextmanager
    def get_connection(
        self, *, read_only: bool = False, create: bool = False
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        """An open connection in UTC, closed on every way out.

        Args:
            read_only: Open beside other readers; the file must exist.
            create: Go on with a new file where the old one is damaged.

        Raises:
            SbError: The file stayed locked or cannot be opened.
            DamagedWarehouse: It is damaged; it was moved aside.
        """
        try:
            connection = self._connect(read_only)
        except DamagedWarehouse as error:
            if not create:
                raise
            _log.warning("%s", error)
            connection = self._connect(read_only)
        try:
            # Not as a connect option: DuckDB 2.0 refuses it there.
            connection.execute("set TimeZone = 'UTC'")
            yield connection
        except duckdb.Error as error:
            if not _is_damage(error):
                raise _explained(self.path, error) from error
            connection.close()
            raise self._moved_aside(error) from error
        finally:
            connection.close()

    @contextmanager
    def reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A read-only connection to a warehouse that has been built.

        Raises:
            SbError: There is none, it is of another version, locked or damaged.
        """
        self._require()
        with self.get_connection(read_only=True) as connection:
            self._require_version(connection)
            yield connection

    @contextmanager
    def writing(self, *, create: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """One transaction: committed at the end, rolled back on any error.

        Args:
            create: Make the file and its tables where they are missing, damaged or of another
                version. Only `events` does: whatever stands on an empty `events` would be wrong.

        Raises:
            SbError: There is no warehouse (without `create`), it stayed locked, or is damaged.
        """
        if create:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise SbError(
                    f"the folder of the warehouse {self.path} cannot be made: {error.strerror}",
                    fix="Name another file with SB_WAREHOUSE, or mend its folder.",
                ) from error
        else:
            self._require()
        with self.get_connection(create=create) as connection:
            connection.execute("begin")
            try:
                if create:
                    self._make_tables(connection)
                else:
                    self._require_version(connection)
                yield connection
                connection.execute("commit")
            except BaseException:
                # A damaged file ends the transaction by itself; nothing is left to roll back then.
                with _ignoring_no_transaction():
                    connection.execute("rollback")
                raise

    def _make_tables(self, connection: duckdb.DuckDBPyConnection) -> None:
        found = _version(connection)
        if found is not None and found != WAREHOUSE_VERSION:
            _log.warning(
                "%s has tables of version %s, this program needs %s: rebuilding it from skills.db",
                *(self.path, found, WAREHOUSE_VERSION),
            )
        if found != WAREHOUSE_VERSION:
            empty(connection)

    def _require(self) -> None:
        if not self.path.exists():
            raise SbError(
                f"there is no warehouse at {self.path}",
                fix="Run `sb refresh`, or materialize the asset `events` first.",
            )

    def _require_version(self, connection: duckdb.DuckDBPyConnection) -> None:
        found = _version(connection)
        if found != WAREHOUSE_VERSION:
            raise SbError(
                f"{self.path} has tables of version {found}, this program needs "
                f"{WAREHOUSE_VERSION}",
                fix="Run `sb refresh`, or materialize the asset `events` first: it rebuilds them.",
            )

    def _connect(self, read_only: bool) -> duckdb.DuckDBPyConnection:
        self._refuse_sqlite()
        started = time.monotonic()
        told = False
        while True:
            try:
                return duckdb.connect(
                    self.database, read_only=read_only, config=dict(self.connection_config)
                )
            except duckdb.Error as error:
                if _is_damage(error):
                    raise self._moved_aside(error) from error
                if not _is_lock(error):
                    if no_room(error):
                        raise _explained(self.path, error) from error
                    raise SbError(
                        f"the warehouse {self.path} cannot be opened: {_first_line(error)}",
                        fix="Check the path and its permissions.",
                    ) from error
                if time.monotonic() - started >= self.wait_seconds:
                    raise SbError(
                        f"the warehouse {self.path} stayed in use for {self.wait_seconds:g} s: "
                        f"{_first_line(error)}",
                        fix="Wait for the Dagster run that writes it, or close the DuckDB shell "
                        "that has it open; to look at results open a file of snapshots/ instead.",
                    ) from error
                if not told:
                    told = True
                    _log.warning(
                        "waiting up to %g s for the warehouse %s: %s",
                        *(self.wait_seconds, self.path, _first_line(error)),
                    )
            time.sleep(0.1)

    def _refuse_sqlite(self) -> None:
        """An SQLite file here is a slip in the settings, and may be the event store itself."""
        try:
            with self.path.open("rb") as file:
                start = file.read(16)
        except OSError:
            return
        if start == b"SQLite format 3\0":
            raise SbError(
                f"warehouse = {self.path} is an SQLite database",
                fix="Set `warehouse` to another file, for example warehouse.duckdb.",
            )

    def _moved_aside(self, error: duckdb.Error) -> DamagedWarehouse:
        aside = self.path.with_name(self.path.name + ".damaged")
        self.path.replace(aside)
        # Left in place, the log of changes would be replayed into the next file of this name.
        wal = Path(f"{self.path}.wal")
        if wal.exists():
            wal.replace(f"{aside}.wal")
        return DamagedWarehouse(
            f"the warehouse {self.path} was damaged ({_first_line(error)}) and moved to {aside}",
            fix="The next refresh rebuilds it from skills.db.",
        )


class Snapshots(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The folder of published snapshots.

    Attributes:
        folder: Where serving processes look for the newest.
        keep: How many stay.
    """

    folder: str
    keep: int = 3

    def any(self) -> bool:
        """Whether something was published yet."""
        return any(Path(self.folder).glob("*.duckdb"))


def empty(connection: duckdb.DuckDBPyConnection) -> None:
    """Drop every table and make those of the schema anew, inside the caller's transaction."""
    names = connection.execute(
        "select table_name from information_schema.tables where table_schema = 'main'"
        " and table_catalog = current_database()"
    ).fetchall()
    for (name,) in names:
        connection.execute(f'drop table "{name}"')
    connection.execute(sql.load("warehouse/schema.sql"))
    connection.execute("insert into warehouse_version values (?)", [WAREHOUSE_VERSION])


def one_row(
    connection: duckdb.DuckDBPyConnection, query: str, parameters: object = None
) -> tuple[Any, ...]:
    """The only row of a query.

    Not by `fetchone`: since DuckDB 2.0 that leaves the result open, and the connection refuses
    other work until it is read to its end.
    """
    (row,) = connection.execute(query, parameters).fetchall()
    return tuple(row)


def watermark(connection: duckdb.DuckDBPyConnection, name: str) -> tuple[int, Any]:
    """How far a table has come.

    Args:
        connection: The warehouse.
        name: `events`, `series`, `totals` or one of a table's own.

    Returns:
        The id up to which all rows are in, 0 for none, and the latest start among them or None.
    """
    rows = connection.execute('select id, "at" from watermarks where name = ?', [name]).fetchall()
    return (int(rows[0][0]), rows[0][1]) if rows else (0, None)


def set_watermark(connection: duckdb.DuckDBPyConnection, name: str, id: int, at: Any) -> None:
    """Move a watermark; call it in the transaction of the rows that it covers."""
    connection.execute(sql.load("warehouse/set_watermark.sql"), {"name": name, "id": id, "at": at})


def _version(connection: duckdb.DuckDBPyConnection) -> int | None:
    """The version of the tables, 0 where they have none, None in a new file."""
    names = {row[0] for row in connection.execute("show tables").fetchall()}
    if not names:
        return None
    if "warehouse_version" not in names:
        return 0
    rows = connection.execute("select version from warehouse_version").fetchall()
    return int(rows[0][0]) if rows else 0


@contextmanager
def _ignoring_no_transaction() -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        _log.debug("rollback: %s", error)


def _is_lock(error: duckdb.Error) -> bool:
    """Another process holds the file, or this one has it open in the other mode."""
    text = str(error)
    return "Could not set lock on file" in text or "different configuration" in text


def _explained(path: Path, error: duckdb.Error) -> Exception:
    """A full disk in words for the user; any other error as it is."""
    if no_room(error):
        return SbError(
            f"{path} cannot be written: {_first_line(error)}",
            fix="Nothing was changed; make room on the disk and try again.",
        )
    return error


def _is_damage(error: duckdb.Error) -> bool:
    text = str(error)
    return any(
        sign in text
        for sign in (
            "not a valid DuckDB database file",
            "Corrupt database file",
            "Could not read enough bytes",
            "Trying to read a database file with version number",
            "Serialization Error",
        )
    )


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].split(" See also ")[0].rstrip(".")
