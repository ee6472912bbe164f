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
from numpy.typing import ArrayLike, NDArray

from sb_serving import sql
from sb_serving.errors import SbError
from sb_serving.predict import DAY, RECENT
from sb_serving.stats.success import COUNTS

__all__ = ["History", "from_columns", "from_events", "texts"]

Ints = NDArray[np.int64]

_MICROSECOND = timedelta(microseconds=1)
_WINDOWS: dict[str, tuple[str, str, int | None]] = {
    "skill_24h": ("skill", "span", DAY // _MICROSECOND),
    "skill_7d": ("skill", "week", None),
    "all_3h": ("all", "span", RECENT // _MICROSECOND),
    "phase_3h": ("phase", "span", RECENT // _MICROSECOND),
}
"""Scope, window and span of those of `COUNTS` that are not counted over all time."""

_TEXTS = ("session_id", "user_id", "workflow_phase", "agent", "agent_version", "model")


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """Runs in the order given, with what was known before each.

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


def from_events(connection: duckdb.DuckDBPyConnection) -> History:
    """The history of a warehouse.

    Args:
        connection: Has the table `events`; temporary tables are made in it.
    """
    connection.execute(
        f"create or replace temp view training_events as {sql.load('training/from_events.sql')}"
    )
    return _history(connection)


def from_columns(
    runs: Mapping[str, ArrayLike], *, known_delay: timedelta = timedelta(0)
) -> History:
    """The history of runs that are in memory.

    Args:
        runs: Columns of one length: `skill_name`, `invoked_at` (datetime64, UTC) and `outcome`,
            and where they are known `duration_seconds`, `session_id`, `user_id`,
            `workflow_phase`, `agent`, `agent_version`, `model`. Missing values are None, NaN or
            masked.
        known_delay: How long after its end an outcome becomes known.

    Raises:
        SbError: A column is missing, or a time is.
    """
    for name in ("skill_name", "invoked_at", "outcome"):
        if name not in runs:
            raise SbError(f"the events have no column {name!r}")
    started = np.asarray(runs["invoked_at"]).astype("datetime64[us]")
    if np.isnat(started).any():
        raise SbError("invoked_at is missing in some events")
    asked = started.astype(np.int64)
    seconds = np.zeros(len(asked))
    if "duration_seconds" in runs:
        given = np.ma.filled(np.ma.asarray(runs["duration_seconds"]).astype(np.float64), np.nan)
        seconds = np.maximum(np.nan_to_num(given, nan=0.0), 0.0)
    delay = known_delay // _MICROSECOND
    table: dict[str, NDArray[np.generic]] = {
        "row": np.arange(len(asked)),
        "skill_name": texts(runs, "skill_name", len(asked)),
        "asked_at": asked,
        "known_at": asked + np.round(seconds * 1e6).astype(np.int64) + delay,
        # Shifted like the outcomes: else a delay of a week would empty the week.
        "bucket_at": asked + delay,
        "outcome": texts(runs, "outcome", len(asked)),
        **{name: texts(runs, name, len(asked)) for name in _TEXTS},
    }
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.register("training_given", table)
        connection.execute(sql.load("training/from_columns.sql"))
        return _history(connection)


def texts(runs: Mapping[str, ArrayLike], name: str, size: int) -> NDArray[np.object_]:
    """A column of texts, '' where missing."""
    if name not in runs:
        return np.full(size, "", dtype=object)
    column = runs[name]
    plain = np.asarray(np.ma.getdata(column), dtype=object)
    missing = np.array([value is None or value != value for value in plain], dtype=bool)
    if isinstance(column, np.ma.MaskedArray):
        missing |= np.ma.getmaskarray(column)
    return np.where(missing, "", plain)


def _history(connection: duckdb.DuckDBPyConnection) -> History:
    for statement in ("facts", "asked"):
        connection.execute(sql.load(f"training/{statement}.sql"))

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
