"""Brings results into the derived tables of `skills.db`, where other tools and the views read them.

Their home is the warehouse. Here: which rows differ, and how they are written beside the recorders.
Which table gets what is decided in `sb_pipelines.defs.write_back`.
"""

from __future__ import annotations

import itertools
import math
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from sb_serving.store import connection as connections
from sb_serving.store.recorder import Store

CHUNK = 5_000
"""Rows per transaction: a recorder waits some hundredths of a second at most."""

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """One derived table.

    Attributes:
        name: Of the table.
        key: Columns that tell its rows apart; wanted rows begin with them and are sorted by them.
        stamp: A column that is written with a row that changed, but is no change by itself.
        rows_are_ours: Rows are added and removed; else they are another's (a trigger keeps them),
            and only the given columns of those that are there are written.
    """

    name: str
    key: tuple[str, ...]
    stamp: str = ""
    rows_are_ours: bool = True


@dataclass(frozen=True, slots=True)
class Brought:
    """What was done to one table.

    Attributes:
        written: Rows added or changed.
        removed: Rows that were gone.
        without_skill: Rows left out because `skill_metrics` does not know their skill.
    """

    written: int = 0
    removed: int = 0
    without_skill: int = 0

    def __add__(self, other: Brought) -> Brought:
        return Brought(
            self.written + other.written,
            self.removed + other.removed,
            self.without_skill + other.without_skill,
        )


def bring(
    store: Store,
    table: Table,
    columns: Sequence[str],
    wanted: Iterable[Row],
    present: str = "",
    parameters: dict[str, Any] | None = None,
    *,
    only_gone: bool = False,
) -> Brought:
    """Make a table hold the wanted rows; only rows that differ are written.

    Each transaction is complete in itself and the difference is taken anew each time, so a run that
    is killed leaves a state that the next one completes.

    Args:
        store: Open for writing.
        table: What to write.
        columns: Names of the wanted columns, the key's first.
        wanted: The rows, sorted by their key.
        present: Query for the rows that they are to replace, of the same columns and order; empty
            means all rows of the table.
        parameters: Of that query.
        only_gone: Only remove rows that are not wanted any more.

    Raises:
        SbError: The database stayed locked, is full, damaged or cannot be written.
    """
    if tuple(columns[: len(table.key)]) != table.key:
        raise ValueError(f"{table.name}: the columns {columns} do not begin with {table.key}")
    done = Brought()
    # A connection of its own: its rows are read from one moment while this one writes.
    with (
        closing(connections.connect_readonly(store.path)) as reading,
        connections.explained(store.path),
    ):
        found = iter(reading.execute(present or _all(table, columns), parameters or {}))
        changes = _differing(table, columns, iter(wanted), found)
        if only_gone:
            changes = (change for change in changes if change[1] is None)
        while batch := list(itertools.islice(changes, CHUNK)):
            done += _write(store, table, columns, batch)
    return done


def count(store: Store, table: str) -> int:
    """How many rows a table has."""
    (rows,) = store.connection.execute(f'select count(*) from "{table}"').fetchone()  # noqa: S608
    return int(rows)


def known_skills(connection: sqlite3.Connection) -> set[str]:
    """The skills that derived rows may refer to."""
    return {name for (name,) in connection.execute("select skill_name from skill_metrics")}


def _all(table: Table, columns: Sequence[str]) -> str:
    return f"select {_list(columns)} from {table.name} order by {_list(table.key)}"  # noqa: S608


def _list(columns: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in columns)


def _differing(
    table: Table, columns: Sequence[str], wanted: Iterator[Row], present: Iterator[Row]
) -> Iterator[tuple[Row, Row | None]]:
    """Walk two sorted tables at once.

    Yields:
        A key, and the row that it is to have; None where it is to have none.
    """
    width = len(table.key)
    compared = [place for place, name in enumerate(columns) if name != table.stamp]
    groups = itertools.groupby(present, key=lambda row: row[:width])
    here = next(groups, None)
    for row in wanted:
        key = row[:width]
        while here is not None and here[0] < key:
            if table.rows_are_ours:
                yield here[0], None
            here = next(groups, None)
        if here is None or here[0] != key:
            if table.rows_are_ours:
                yield key, row
            continue
        olds = list(here[1])
        if len(olds) > 1 or not all(_same(olds[0][place], row[place]) for place in compared):
            yield key, row
        here = next(groups, None)
    while here is not None and table.rows_are_ours:
        yield here[0], None
        here = next(groups, None)


def _same(old: Any, new: Any) -> bool:
    """Whether two values are equal; a sum in another order differs in its last digits."""
    if isinstance(old, float) and isinstance(new, float):
        return math.isclose(old, new, rel_tol=1e-9)
    return bool(old == new)


def _write(
    store: Store, table: Table, columns: Sequence[str], batch: list[tuple[Row, Row | None]]
) -> Brought:
    execute, many = store.connection.execute, store.connection.executemany
    of_key = " and ".join(f'"{name}" = ?' for name in table.key)
    rows = [row for _, row in batch if row is not None]
    with connections.transaction(store.connection, store.path):
        if not table.rows_are_ours:
            width = len(table.key)
            assignments = ", ".join(f'"{name}" = ?' for name in columns[width:])
            many(
                f"update {table.name} set {assignments} where {of_key}",  # noqa: S608
                [(*row[width:], *row[:width]) for row in rows],
            )
            return Brought(written=len(rows))
        places = _skill_places(store.connection, table, columns)
        known = known_skills(store.connection)
        allowed = [row for row in rows if all(row[place] in known for place in places)]
        # A changed row goes and comes: others may refer to it, and unique names may move about.
        execute("pragma defer_foreign_keys = on")
        many(f"delete from {table.name} where {of_key}", [key for key, _ in batch])  # noqa: S608
        marks = ", ".join("?" * len(columns))
        many(
            f"insert into {table.name} ({_list(columns)}) values ({marks})",  # noqa: S608
            allowed,
        )
    return Brought(len(allowed), len(batch) - len(rows), len(rows) - len(allowed))


def _skill_places(
    connection: sqlite3.Connection, table: Table, columns: Sequence[str]
) -> list[int]:
    """Which of the columns must name a row of `skill_metrics`."""
    keys = connection.execute(
        'select "from" from pragma_foreign_key_list(?) where "table" = ?',
        (table.name, "skill_metrics"),
    )
    return [columns.index(name) for (name,) in keys if name in columns]
