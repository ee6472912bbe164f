"""Reads `skills.db` files that are not ours to write: any version, another program's V4.

The file is copied with SQLite's backup API from a read-only connection and only the copy is looked
at, filled up to the columns of V4 by their names: whatever type an id has, and whatever else a
version added, does not matter. What a row means lives in `sources/session_buddy.py`; migrating a
file in place in `migrate`.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sb_serving import sql, times
from sb_serving.errors import SbError
from sb_serving.events import Invocation
from sb_serving.store import checks, migrate
from sb_serving.store import connection as connections
from sb_serving.store.recorder import Store

Convert = Callable[[Mapping[str, Any], Callable[[str], str]], Invocation]
"""Makes a record of one row of `sql/store/other_rows.sql`; is given what hashes a user."""

LOG = "skill_invocation"

NEEDED = {
    LOG: ("skill_name", "invoked_at", "session_id", "completed"),
    "skill_user_interactions": ("user_id", "session_id", "skill_name", "invoked_at", "completed"),
    "ab_test_configs": (
        "test_id",
        "test_name",
        "control_strategy",
        "treatment_strategy",
        "start_date",
    ),
    "ab_test_assignments": ("test_id", "user_id", "group_name"),
    "ab_test_outcomes": ("test_id", "user_id", "skill_name", "completed"),
    "skill_categories": ("category_id", "category_name"),
    "skill_category_mapping": ("skill_name", "category_id"),
    "skill_modalities": ("skill_name", "modality_type"),
}
"""Columns without which a table says nothing."""

OPTIONAL = {
    LOG: ("duration_seconds", "error_type", "workflow_path", "workflow_phase", "workflow_step_id"),
    "skill_user_interactions": ("rating",),
    "ab_test_configs": (
        "description",
        "end_date",
        "min_sample_size",
        "metrics",
        "assignment_ratio",
        "status",
        "created_at",
    ),
    "ab_test_assignments": ("assigned_at",),
    "ab_test_outcomes": ("duration_seconds", "user_rating", "recorded_at"),
    "skill_categories": ("parent_category_id", "description", "domain", "created_at"),
    "skill_category_mapping": ("confidence_score", "assigned_at"),
    "skill_modalities": ("input_format", "output_format", "requires_human_review", "created_at"),
}
"""Columns that are read where they are there."""


@dataclass(slots=True)
class Summary:
    """What was read from other files and what came of it.

    Attributes:
        files: Files read.
        versions: Highest schema version that each file says it has, empty where it says none.
        rows: Invocations read, and interactions that no invocation belongs to.
        by_outcome: The same, by outcome.
        inserted: Invocations that are new in the store.
        duplicates: Copies: twice in a file, or in the store before.
        future: Invocations dated more than 5 minutes after now; stored, but a clock is wrong.
        left_out: Values that the store does not take, by field; their rows came without them.
        refused: One message per row that the store refused.
        pruned: Rows left out because their day, or a later one, was pruned from the store.
        authored: Rows of experiments and taxonomy added, by table.
        not_read: One message per table or experiment that was passed over, and why.
    """

    files: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    rows: int = 0
    by_outcome: Counter[str] = field(default_factory=Counter)
    inserted: int = 0
    duplicates: int = 0
    future: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)
    pruned: int = 0
    authored: Counter[str] = field(default_factory=Counter)
    not_read: list[str] = field(default_factory=list)


def bring_over(
    store: Store, path: Path, convert: Convert, user: Callable[[str], str], summary: Summary
) -> None:
    """Read another file's invocations, interactions, experiments and taxonomy into the store.

    Running it again adds nothing: invocations are known by session, skill and start, the rest by
    name. The file is not changed.

    Args:
        store: Where to.
        path: The other file.
        convert: What a row means.
        user: Hashes a user's id.
        summary: Is added to.

    Raises:
        SbError: There is no such file, it lacks the log or a column of it, or it is one of ours.
    """
    if path.exists() and path.samefile(store.path):
        raise SbError(f"{path} is the event store itself", fix="Name another file.")
    with _copied(path) as (copy, copy_path):
        columns = _columns(copy)
        _check(path, columns)
        summary.files += 1
        summary.versions[str(path)] = _version(copy, columns)
        _fill_up(copy, columns, path, summary)
        with connections.explained(path):
            rows = _invocations(copy, convert, user, summary)
            result = store.bulk_import(rows)
        summary.inserted += result.inserted
        summary.duplicates += result.duplicates
        summary.pruned += result.pruned
        summary.refused += [f"{path}: {message}" for message in result.refused]
        _carry_authored(store, copy_path, user, path, summary)


@contextmanager
def _copied(path: Path) -> Iterator[tuple[sqlite3.Connection, Path]]:
    """A private copy of a database, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="sb-") as folder:
        copy_path = Path(folder, "copy.db")
        with closing(sqlite3.connect(copy_path, isolation_level=None)) as copy:
            with closing(_readonly(path)) as source, connections.explained(path):
                source.backup(copy)
            with connections.explained(path):
                copy.execute("pragma journal_mode = delete")
                verdict = copy.execute("pragma quick_check(1)").fetchone()[0]
            if verdict != "ok":
                raise SbError(f"{path} is damaged: {verdict}", fix="Nothing was read from it.")
            copy.row_factory = sqlite3.Row
            copy.text_factory = lambda text: text.decode("utf-8", "replace")
            yield copy, copy_path


def _readonly(path: Path) -> sqlite3.Connection:
    """Open a file for reading, also in WAL mode and in a folder that cannot be written."""
    try:
        return connections.connect_readonly(path)
    except SbError:
        if not path.exists() or path.with_name(path.name + "-wal").exists():
            raise
        # SQLite wants to make its shared memory beside the file. Nobody can be writing there.
        connection = sqlite3.connect(f"file:{quote(str(path))}?immutable=1", uri=True)
        try:
            with connections.explained(path):
                connection.execute("select count(*) from sqlite_master").fetchone()
        except BaseException:
            connection.close()
            raise
        return connection


def _columns(copy: sqlite3.Connection) -> dict[str, set[str]]:
    """The columns of each table that concerns us."""
    found = {}
    for table in (*NEEDED, "skill_migrations"):
        names = {row[1] for row in copy.execute(f"pragma table_info({table})")}
        if names:
            found[table] = names
    return found


def _check(path: Path, columns: dict[str, set[str]]) -> None:
    if LOG not in columns:
        raise SbError(f"{path} has no table {LOG}", fix="Name a Session-Buddy skills.db.")
    if absent := [name for name in NEEDED[LOG] if name not in columns[LOG]]:
        raise SbError(
            f"{path}: {LOG} lacks {', '.join(absent)}", fix="Its rows cannot be told apart."
        )
    if {"event_id", "outcome", "source"} <= columns.get("skill_user_interactions", set()):
        raise SbError(
            f"{path} is an event store of this program",
            fix=f"Use it as it is: `--db {path}`.",
        )


def _version(copy: sqlite3.Connection, columns: dict[str, set[str]]) -> str:
    if not {"version", "success"} <= columns.get("skill_migrations", set()):
        return ""
    stems = [
        row[0] for row in copy.execute("select version from skill_migrations where success = 1")
    ]
    return max(stems, key=lambda stem: (len(stem.partition("__")[0]), stem), default="")


def _fill_up(
    copy: sqlite3.Connection, columns: dict[str, set[str]], path: Path, summary: Summary
) -> None:
    """Give the copy every table and column that the queries name."""
    others = copy.execute(
        "select type, name from sqlite_master where type in ('trigger', 'view')"
    ).fetchall()
    for kind, name in others:
        if name not in NEEDED:  # SQLite alters no table that a broken view refers to
            copy.execute(f'drop {kind} "{name}"')
    for table, needed in NEEDED.items():
        present = columns.get(table)
        if present is not None and (absent := [name for name in needed if name not in present]):
            summary.not_read.append(f"{path}: {table} lacks {', '.join(absent)}")
            copy.execute(f"drop table {table}")
            present = None
        if present is None:
            copy.execute(f"create table {table} ({', '.join(needed)})")
            present = set(needed)
        for name in OPTIONAL[table]:
            if name not in present:
                copy.execute(f"alter table {table} add column {name}")


def _invocations(
    copy: sqlite3.Connection, convert: Convert, user: Callable[[str], str], summary: Summary
) -> Iterator[Invocation]:
    latest = checks.latest_allowed()
    for row in copy.execute(sql.load("store/other_rows.sql")):
        invocation, left_out = checks.without_wrong_extras(convert(row, user))
        try:
            invocation = replace(invocation, invoked_at=times.to_utc_text(invocation.invoked_at))
        except (ValueError, TypeError, AttributeError, OverflowError):
            pass  # the store refuses it by name
        else:
            summary.future += invocation.invoked_at > latest
        summary.left_out.update(left_out)
        summary.rows += 1
        summary.by_outcome[invocation.outcome] += 1
        yield invocation


def _carry_authored(
    store: Store,
    copy_path: Path,
    user: Callable[[str], str],
    path: Path,
    summary: Summary,
) -> None:
    connection = store.connection
    connection.create_function(
        "rekey",
        1,
        lambda value: user(str(value)) if value not in (None, "") else "",
        deterministic=True,
    )
    connection.execute("attach ? as other", (f"file:{quote(str(copy_path))}?mode=ro",))
    try:
        with connections.transaction(connection, store.path):
            for statement in migrate.statements(sql.load("store/other_authored.sql")):
                added = connection.execute(statement).rowcount
                for table in NEEDED:
                    if f"into main.{table} (" in statement:
                        summary.authored[table] += added
            names = connection.execute(sql.load("store/other_tests.sql")).fetchall()
            for (name,) in names:
                summary.not_read.append(
                    f"{path}: the experiment {name!r} is another one than ours of that name"
                )
            connection.execute("drop table temp.same_test")
            connection.execute("drop table temp.new_category")
    finally:
        connection.execute("detach other")
        connection.create_function("rekey", 1, None)
