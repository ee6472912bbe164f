"""What was known before each past run: the predictor's counts for a whole history at once.

Belongs here: running `sql/training/*.sql` over a DuckDB connection that has the runs, and the rows
that training needs beside the counts (who, when, how it ended). Does not: what the features made
of these counts are (`sb_serving.stats.success`), the same counts for one run now
(`sb_serving.predict`), fitting (`fit`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import duckdb
import numpy as np
from numpy.typing import NDArray

from sb_serving import sql
from sb_serving.predict import DAY, RECENT
from sb_serving.stats.success import COUNTS

__all__ = ["History", "from_file", "from_warehouse"]

Ints = NDArray[np.int64]

MOST_RUNS = 1_000_000
"""Runs that are kept in memory: 250 bytes each; more than training takes."""

_MICROSECOND = timedelta(microseconds=1)
_WINDOWS: dict[str, tuple[str, str, int | None]] = {
    "skill_24h": ("skill", "span", DAY // _MICROSECOND),
    "skill_7d": ("skill", "week", None),
    "all_3h": ("all", "span", RECENT // _MICROSECOND),
    "phase_3h": ("phase", "span", RECENT // _MICROSECOND),
}
"""Scope, window and span of those of `COUNTS` that are not counted over all time."""


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """Runs, with what was known before each.

    Attributes:
        counts: `asked_at` and the columns of `COUNTS` and `SESSION` (see
            `sb_serving.stats.success`), shape (n,) each.
        known_at: When each outcome was known, microseconds since 1970, shape (n,).
        completed: Whether the run completed, shape (n,).
        decided: Whether it completed or failed; the others teach nothing, shape (n,).
        session: Number of its session, of its own where that is unknown, shape (n,).
        skill: Number of its skill, from 0, shape (n,).
    """

    counts: Mapping[str, Ints]
    known_at: Ints
    completed: NDArray[np.bool_]
    decided: NDArray[np.bool_]
    session: Ints
    skill: Ints

    @property
    def asked_at(self) -> Ints:
        """When each run started, microseconds since 1970, shape (n,)."""
        return self.counts["asked_at"]

    def __len__(self) -> int:
        return len(self.known_at)

    def rows(self, which: NDArray[np.intp] | NDArray[np.bool_]) -> dict[str, Ints]:
        """The columns of some runs."""
        return {name: column[which] for name, column in self.counts.items()}


def from_warehouse(connection: duckdb.DuckDBPyConnection, most: int = MOST_RUNS) -> History:
    """The history of a warehouse, in the order of its ids.

    Args:
        connection: Has the table `events`; temporary tables are made in it.
        most: Where there are more runs, so many of them, evenly spread; what was known before each
            is still counted over all.
    """
    rows = len(connection.table("events"))
    return _history(connection, "from_warehouse", {}, every=max(1, -(-rows // most)))


def from_file(connection: duckdb.DuckDBPyConnection, delay: timedelta) -> History:
    """The history of an event file, by start and event id.

    Args:
        connection: Has the view `events` of `sql/analyze/events.sql`; temporary tables are made.
        delay: How long after its end an outcome becomes known.
    """
    return _history(connection, "from_file", {"delay": delay // _MICROSECOND})


def _history(
    connection: duckdb.DuckDBPyConnection,
    source: str,
    parameters: Mapping[str, object],
    every: int = 1,
) -> History:
    # A filter on row numbers is planned as if it left one row, and the join after it as a loop over
    # all rows for that one: a million squared.
    connection.execute("set asof_loop_join_threshold = 0")
    connection.execute(
        f"create or replace temp table training_events as {sql.load(f'training/{source}.sql')}",
        dict(parameters),
    )
    connection.execute(sql.load("training/facts.sql"))
    connection.execute(sql.load("training/asked.sql"), {"every": every})

    def columns(query: str, **parameters: object) -> dict[str, Ints]:
        found = connection.execute(sql.load(f"training/{query}.sql"), parameters).fetchnumpy()
        return {name: np.asarray(column) for name, column in found.items()}

    outcome = columns("outcome")
    counts = columns("session")
    for name in COUNTS:
        scope, window, span = _WINDOWS.get(name, (name, "ever", None))
        found = columns("known_before", scope=scope, window=window, span=span)
        counts |= {f"{name}_{what}": column for what, column in found.items()}
    return History(
        counts=counts,
        known_at=outcome["known_at"],
        completed=outcome["completed"].astype(bool),
        decided=outcome["decided"].astype(bool),
        session=outcome["session"],
        skill=outcome["skill"],
    )
