"""Runs that are in memory, as the predictor's history and as an event file's events."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import duckdb
import numpy as np

from sb_pipelines.analyze import Events
from sb_pipelines.training.features import History, from_file

Columns = dict[str, Any]


def events_of(columns: Mapping[str, Any]) -> Events:
    """Columns as `sb analyze` reads those of a file; masked values are missing."""
    connection = duckdb.connect()
    connection.execute("set TimeZone = 'UTC'")
    plain = {
        name: column.filled(np.nan) if isinstance(column, np.ma.MaskedArray) else column
        for name, column in columns.items()
    }
    connection.register("given_columns", plain)
    connection.execute("create table file as from given_columns")
    return Events(connection, "columns", strict=True)


def history_of(columns: Mapping[str, Any], delay: timedelta = timedelta(0)) -> History:
    """The history of columns, its rows in the order of theirs."""
    size = len(columns["skill_name"])
    numbers = np.array([f"{row:09d}" for row in range(size)] or [""], dtype=object)[:size]
    events = events_of(dict(columns) | {"event_id": numbers})
    found = from_file(events.connection, delay)
    order = np.argsort(events.count("predicted")["event_id"])
    return History(
        counts=found.rows(order),
        known_at=found.known_at[order],
        completed=found.completed[order],
        decided=found.decided[order],
        session=found.session[order],
        skill=found.skill[order],
    )
