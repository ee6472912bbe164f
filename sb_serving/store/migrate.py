"""The schema of `skills.db`, version by version.

A version is a pair of scripts in `sql/migrations`. Views and triggers are not part of a script:
after each change all that the file's version knows (`-- since: V3` in their first line) are made
anew from `sql/views` and `sql/triggers`, so that a better definition needs no migration. What
they replace in a file that another tool made is kept in `sb_replaced_ddl` and comes back on the
way down. Views and triggers of other names are nobody's business here: they stay.

Each step is one transaction: a crash leaves the version before or after it, nothing between. The
backup before the first step is made inside its transaction, so that no row falls between the two.
Copies of the file are made in `backups`; what is brought back from one lives in `restore`.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sb_serving import sql, times
from sb_serving.errors import SbError
from sb_serving.store import backups
from sb_serving.store import connection as connections

LATEST = 4
APPLIED_BY = "session-buddy-analytics"

backup = backups.make


@dataclass(frozen=True, slots=True)
class Migration:
    """One version: its number, file stem and two scripts."""

    number: int
    stem: str

    @property
    def up_sql(self) -> str:
        """The script that brings the version before to this one."""
        return sql.load(f"migrations/{self.stem}__up.sql")

    @property
    def down_sql(self) -> str:
        """The script that undoes it."""
        return sql.load(f"migrations/{self.stem}__down.sql")

    @property
    def checksum(self) -> str:
        """SHA-256 of the up script, to notice that an applied file was edited."""
        return hashlib.sha256(self.up_sql.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Status:
    """Where a file stands.

    Attributes:
        version: Highest applied version, 0 for a fresh file.
        applied: Stems of the applied versions, in order.
        pending: Stems that `up` would apply.
        created_here: Whether this program made the file.
    """

    version: int
    applied: tuple[str, ...]
    pending: tuple[str, ...]
    created_here: bool


@cache
def migrations() -> tuple[Migration, ...]:
    """All versions, lowest first."""
    found = []
    for path in (sql.root() / "migrations").glob("V*__up.sql"):
        stem = path.name.removesuffix("__up.sql")
        found.append(Migration(_number(stem), stem))
    return tuple(sorted(found, key=lambda migration: migration.number))


def _number(stem: str) -> int:
    found = re.match(r"V(\d+)__", stem)
    return int(found[1]) if found else 0


def status(connection: sqlite3.Connection, path: Path) -> Status:
    """Read a file's version and check that it is one we know.

    Raises:
        SbError: The file is of an unknown or half-applied version, or an applied script was edited.
    """
    with connections.explained(path):
        return _status(connection, path)


def _status(connection: sqlite3.Connection, path: Path) -> Status:
    tables = _names(connection, "table")
    known = {migration.stem: migration for migration in migrations()}
    if "skill_migrations" not in tables:
        if tables - {"sqlite_sequence", "expected_dependencies"}:
            raise SbError(
                f"{path} is an SQLite database of another kind (tables: "
                f"{', '.join(sorted(tables)[:5])})",
                fix="Name a Session-Buddy skills.db, or a path where none exists yet.",
            )
        return Status(0, (), tuple(known), created_here=True)
    rows = connection.execute(
        "select version, checksum, applied_by, success from skill_migrations"
    ).fetchall()
    rows.sort(key=lambda row: (_number(row[0]), row[0]))
    _check_known(path, [(row[0], row[3] == 1) for row in rows], list(known))
    for version, checksum, *_ in rows:
        if checksum and checksum != known[version].checksum:
            raise SbError(
                f"{version} was applied to {path} from another text than the one installed now",
                fix="Install the version that applied it, or restore the script.",
            )
    applied = tuple(row[0] for row in rows)
    _check_columns(connection, path, len(applied))
    return Status(
        len(applied),
        applied,
        tuple(known)[len(applied) :],
        created_here=bool(rows) and rows[0][2] == APPLIED_BY,
    )


def _check_known(path: Path, applied: list[tuple[str, bool]], known: list[str]) -> None:
    stems = [stem for stem, _ in applied]
    extra = [stem for stem in stems if stem not in known]
    if extra:
        raise SbError(
            f"{path} has migrations that this program does not know: {', '.join(extra)}",
            fix=f"It is left untouched; `sb ingest session-buddy {path}` reads its rows.",
        )
    failed = [stem for stem, success in applied if not success]
    if failed or stems != known[: len(stems)]:
        raise SbError(
            f"{path} is half migrated: it has {', '.join(stems)}"
            + (f", of which {', '.join(failed)} failed" if failed else ""),
            fix=f"Restore a backup of it, or read its rows: `sb ingest session-buddy {path}`.",
        )


def _check_columns(connection: sqlite3.Connection, path: Path, version: int) -> None:
    """Refuse a V4 file whose companion table is not ours: its rows could not be joined."""
    if version < LATEST:
        return
    columns = {row[1] for row in connection.execute("pragma table_info(skill_user_interactions)")}
    absent = {"invocation_id", "event_id", "outcome", "kind"} - columns
    if absent:
        raise SbError(
            f"{path} is another program's V4: skill_user_interactions lacks "
            f"{', '.join(sorted(absent))}",
            fix=f"It is left untouched; `sb ingest session-buddy {path}` reads its rows.",
        )


def _check_leftovers(connection: sqlite3.Connection, path: Path, todo: list[Migration]) -> None:
    """Refuse a file that has tables of a version that was not applied to it."""
    tables = _names(connection, "table")
    for migration in todo:
        made = re.findall(r"^create (?:virtual )?table (\w+)", migration.up_sql, flags=re.M)
        if left := sorted(tables.intersection(made)):
            raise SbError(
                f"{path} is half migrated: {migration.stem} was not applied to it, but its tables "
                f"{', '.join(left)} are there",
                fix=f"Restore a backup of it, or read its rows: `sb ingest session-buddy {path}`.",
            )


def up(
    connection: sqlite3.Connection, path: Path, *, target: int = LATEST, dry_run: bool = False
) -> list[str]:
    """Apply what is pending up to a version.

    Where nothing is pending, views and triggers of ours that are not those installed now are made
    anew.

    Args:
        connection: Opened by `connection.connect`.
        path: The file, for messages, turns and the backup.
        target: Highest version to apply.
        dry_run: Only say what would be applied.

    Returns:
        The stems applied, lowest first.

    Raises:
        SbError: The file is refused (see `status`) or a script failed; the file is as before.
    """
    version, todo = _todo(connection, path, target)
    if dry_run:
        return [migration.stem for migration in todo]
    connections.use_wal(connection, path)
    if not todo:
        _renew(connection, path)
    saved = not version
    done = []
    for migration in todo:
        with connections.transaction(connection, path):
            if status(connection, path).version >= migration.number:
                continue  # another process was faster while we waited for our turn
            if not saved:
                _backup_within(path)
                saved = True
            _save_replaced(connection, migration.number - 1)
            _drop_ours(connection)
            for statement in statements(migration.up_sql):
                connection.execute(statement)
            connection.execute(
                "insert into skill_migrations (version, applied_at, checksum, applied_by)"
                " values (?, ?, ?, ?)",
                (migration.stem, times.now_text(), migration.checksum, APPLIED_BY),
            )
            make_views_and_triggers(connection, migration.number)
            if migration.number == LATEST:
                # The script counts hours by its own words, which its checksum keeps as they are.
                count_hours_anew(connection)
        done.append(migration.stem)
    return done


def is_pruned(connection: sqlite3.Connection) -> bool:
    """Whether days were ever pruned from the file; see `store/pruned_tables.sql`."""
    found = connection.execute("select 1 from sqlite_master where name = 'sb_pruned_days'")
    return found.fetchone() is not None


def begin_pruning(connection: sqlite3.Connection) -> None:
    """Make the tables of pruned days, and the views anew, which read them; in a transaction."""
    for statement in statements(sql.load("store/pruned_tables.sql")):
        connection.execute(statement)
    _drop_ours(connection)
    make_views_and_triggers(connection, LATEST)


def count_hours_anew(connection: sqlite3.Connection) -> None:
    """Fill `skill_hour` from the log and from what was pruned of it; in a transaction."""
    scripts = ["store/count_hours_anew.sql"]
    if is_pruned(connection):
        scripts.append("store/count_pruned_hours.sql")
    for script in scripts:
        for statement in statements(sql.load(script)):
            connection.execute(statement)


def _todo(connection: sqlite3.Connection, path: Path, target: int) -> tuple[int, list[Migration]]:
    """A file's version and what is pending, at one moment: another process may be at work on it."""
    connection.execute("begin")
    try:
        version = status(connection, path).version
        todo = [m for m in migrations() if version < m.number <= target]
        _check_leftovers(connection, path, todo)
    finally:
        connection.execute("rollback")
    return version, todo


def down(
    connection: sqlite3.Connection, path: Path, *, steps: int = 1, dry_run: bool = False
) -> list[str]:
    """Undo the newest versions, newest first, and put back the DDL that `up` replaced.

    Returns:
        The stems undone.

    Raises:
        SbError: The file is refused (see `status`) or a script failed; the file is as before.
    """
    current = status(connection, path)
    by_number = {migration.number: migration for migration in migrations()}
    todo = [by_number[n] for n in range(current.version, max(current.version - steps, 0), -1)]
    if dry_run or not todo:
        return [migration.stem for migration in todo]
    saved = False
    done = []
    connection.execute("pragma foreign_keys = off")  # a dropped table would empty itself row by row
    try:
        for migration in todo:
            with connections.transaction(connection, path):
                if status(connection, path).version != migration.number:
                    break  # another process changed it while we waited for our turn
                if not saved:
                    _backup_within(path)
                    saved = True
                _step_down(connection, migration)
            done.append(migration.stem)
    finally:
        connection.execute("pragma foreign_keys = on")
    return done


def _step_down(connection: sqlite3.Connection, migration: Migration) -> None:
    below = migration.number - 1
    _drop_ours(connection)
    for statement in statements(migration.down_sql):
        connection.execute(statement)
    if below:
        connection.execute("delete from skill_migrations where version = ?", (migration.stem,))
        make_views_and_triggers(connection, below)
    else:
        for name in sorted(_names(connection, "table")):
            if name.startswith("sb_pruned_"):
                connection.execute(f'drop table "{name}"')
    _restore_replaced(connection, below)


def _backup_within(path: Path) -> None:
    """Back the file up while our own transaction, still empty, keeps every other writer out."""
    with closing(connections.connect_readonly(path)) as reading:
        backups.make(reading, path)


def make_views_and_triggers(connection: sqlite3.Connection, version: int) -> None:
    """Make every view and trigger that a version knows; any of the same name must be gone."""
    for _, text in _definitions(version, pruned=is_pruned(connection)):
        connection.execute(text)


@cache
def trigger_names() -> tuple[str, ...]:
    """Our triggers on `skill_invocation`, which a bulk import drops and makes again."""
    return tuple(path.stem for path in sorted((sql.root() / "triggers").glob("*.sql")))


@cache
def _definitions(version: int, *, pruned: bool = False) -> tuple[tuple[str, str], ...]:
    """Name and text of every view and trigger that a version knows.

    Args:
        version: The version.
        pruned: Whether days were pruned: then views of the log add what was left of them.
    """
    found = []
    for folder in ("triggers", "views"):
        for path in sorted((sql.root() / folder).glob("*.sql")):
            other = sql.root() / "pruned_views" / path.name
            chosen = other if pruned and folder == "views" and other.exists() else path
            text = sql.load(f"{chosen.parent.name}/{path.name}")
            since = re.match(r"-- since: V(\d+)", text)
            if since is None:
                raise ValueError(f"sql/{folder}/{path.name} does not begin with '-- since: V<n>'")
            if int(since[1]) <= version:
                found.append((path.stem, text))
    return tuple(found)


def _names(connection: sqlite3.Connection, kind: str) -> set[str]:
    rows = connection.execute("select name from sqlite_master where type = ?", (kind,))
    return {row[0] for row in rows}


def _present(connection: sqlite3.Connection) -> list[tuple[str, str, str]]:
    """The views and triggers in the file that have a name of ours, in the order of their making."""
    ours = {name for name, _ in _definitions(LATEST)}
    rows = connection.execute(
        "select type, name, sql from sqlite_master where type in ('view', 'trigger') order by rowid"
    ).fetchall()
    return [row for row in rows if row[1] in ours]


def _drop_ours(connection: sqlite3.Connection) -> None:
    for kind, name, _ in _present(connection):
        connection.execute(f'drop {kind} "{name}"')


def _are_ours(
    connection: sqlite3.Connection, present: list[tuple[str, str, str]], version: int
) -> bool:
    """Whether views and triggers are those that this program makes for a version."""
    texts = dict(_definitions(version, pruned=is_pruned(connection)))
    # SQLite keeps a definition from after its "create" on, in the case that it was written in.
    return {name for _, name, _ in present} == texts.keys() and all(
        text.partition(" ")[2].partition(" ")[2] in texts[name] for _, name, text in present
    )


def _renew(connection: sqlite3.Connection, path: Path) -> None:
    """Replace views and triggers that an earlier release of ours made."""
    version = status(connection, path).version
    if not version or not _made_here(connection, version):
        return
    if _are_ours(connection, _present(connection), version):
        return
    with connections.transaction(connection, path):
        _drop_ours(connection)
        make_views_and_triggers(connection, version)


def _made_here(connection: sqlite3.Connection, version: int) -> bool:
    """Whether this program applied a version, and so made the views and triggers that are there."""
    (by,) = connection.execute(
        "select applied_by from skill_migrations where version = ?",
        (migrations()[version - 1].stem,),
    ).fetchone()
    return bool(by == APPLIED_BY)


def _save_replaced(connection: sqlite3.Connection, version: int) -> None:
    """Keep the views and triggers of another tool, or of a user, that are about to be replaced."""
    if not version:
        return
    present = _present(connection)
    if _made_here(connection, version) and _are_ours(connection, present, version):
        return
    connection.execute(
        "create table if not exists sb_replaced_ddl (version integer not null,"
        " position integer not null, sql text not null, primary key (version, position))"
    )
    connection.executemany(
        "insert or replace into sb_replaced_ddl values (?, ?, ?)",
        [(version, position, text) for position, (_, _, text) in enumerate(present)],
    )


def _restore_replaced(connection: sqlite3.Connection, version: int) -> None:
    if "sb_replaced_ddl" not in _names(connection, "table"):
        return
    saved = connection.execute(
        "select sql from sb_replaced_ddl where version = ? order by position", (version,)
    ).fetchall()
    if saved or (version and not _made_here(connection, version)):
        # The file was another tool's at this version: it gets back exactly what it had.
        _drop_ours(connection)
        for (text,) in saved:
            connection.execute(text)
    connection.execute("delete from sb_replaced_ddl where version >= ?", (version,))
    if connection.execute("select 1 from sb_replaced_ddl").fetchone() is None:
        connection.execute("drop table sb_replaced_ddl")


def statements(script: str) -> Iterator[str]:
    """Split a script where SQLite says that a statement is complete.

    `executescript` would commit the transaction that it is called in.
    """
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
    if re.sub(r"--[^\n]*", "", pending).strip():
        raise ValueError(f"incomplete SQL statement: {pending.strip()[:80]!r}")
