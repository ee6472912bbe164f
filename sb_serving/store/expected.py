"""Pairs of skills that somebody expects to go together: the table `expected_dependencies`.

Belongs here: writing and listing them. Does not: what was measured (`skill_dependencies`) and how
the two compare (`sb_serving.stats.lift.compare_expected`).
"""

from __future__ import annotations

import math
import sqlite3
from dataclasses import dataclass

from sb_serving import sql, times
from sb_serving.errors import SbError
from sb_serving.store import checks
from sb_serving.store import connection as connections
from sb_serving.store.recorder import Store

TABLE = "expected_dependencies"
MAX_LIFT = 1e6


@dataclass(frozen=True, slots=True)
class Expected:
    """One pair; the columns of the table."""

    skill_a: str
    skill_b: str
    lift: float | None
    created_at: str


def exists(database: sqlite3.Connection) -> bool:
    """Whether a pair was ever written."""
    found = database.execute(
        "select 1 from sqlite_master where type = 'table' and name = ?", (TABLE,)
    )
    return found.fetchone() is not None


def listed(database: sqlite3.Connection) -> list[Expected]:
    """All pairs by name."""
    if not exists(database):
        return []
    rows = database.execute(
        "select skill_a, skill_b, lift, created_at from expected_dependencies"
        " order by skill_a, skill_b"
    )
    return [Expected(*row) for row in rows]


def write(store: Store, one: str, other: str, lift: float | None) -> Expected:
    """Add a pair, or change the lift of one that is there.

    Args:
        store: The event store.
        one: A skill; it need not have been used yet.
        other: The other one.
        lift: The lift that is expected, above 1 to a million; None for any association.

    Raises:
        SbError: A name or the lift is not possible, or both names are one.
    """
    skill_a, skill_b = _pair(one, other)
    if lift is not None and not (math.isfinite(lift) and 1.0 < lift <= MAX_LIFT):
        raise SbError(
            f"lift = {lift:g} is not above 1 and at most {MAX_LIFT:g}",
            fix="1 is independent use; leave --lift out if you expect no particular strength.",
        )
    row = Expected(skill_a, skill_b, lift, times.now_text())
    with connections.transaction(store.connection, store.path):
        store.connection.execute(sql.load("store/expected_dependencies.sql"))
        store.connection.execute(
            "insert or replace into expected_dependencies values (?, ?, ?, ?)",
            (row.skill_a, row.skill_b, row.lift, row.created_at),
        )
    return row


def remove(store: Store, one: str, other: str) -> Expected:
    """Take a pair out.

    Raises:
        SbError: It is not there.
    """
    skill_a, skill_b = _pair(one, other)
    with connections.transaction(store.connection, store.path):
        for row in listed(store.connection):
            if (row.skill_a, row.skill_b) == (skill_a, skill_b):
                store.connection.execute(
                    "delete from expected_dependencies where skill_a = ? and skill_b = ?",
                    (skill_a, skill_b),
                )
                return row
    raise SbError(f"{skill_a} + {skill_b} is not expected", fix="`sb expect` lists what is.")


def _pair(one: str, other: str) -> tuple[str, str]:
    for name, value in (("SKILL_A", one), ("SKILL_B", other)):
        checks.check_name(name, value)
    if one == other:
        raise SbError(f"SKILL_A and SKILL_B are both {one!r}", fix="Name two skills.")
    return (one, other) if one < other else (other, one)
