"""A store and a warehouse in one folder, and the steps of a refresh without Dagster."""

from __future__ import annotations

import shutil
import sqlite3
from datetime import datetime
from pathlib import Path
from typing import Any

from sb_pipelines.defs import audit, events, predictor_totals, sets, time_series, write_back
from sb_pipelines.resources import SkillsDb, Warehouse
from sb_serving import times
from sb_serving.events import Invocation
from sb_serving.store import Store
from sb_serving.store.derived import Brought
from tests.builders import SESSION_BUDDY_INSERT, new_store

NOWHERE = datetime(1990, 1, 1)
"""A window without days."""


def make_empty_store(folder: Path) -> Path:
    """A migrated store without rows, to be copied: migrating takes longer than most tests."""
    with new_store(folder) as store:
        store.connection.execute("pragma wal_checkpoint(truncate)")
    return folder / "skills.db"


class Place:
    """A store and a warehouse in one folder, and the steps of a refresh."""

    def __init__(self, folder: Path, empty_store: Path) -> None:
        self.db = folder / "skills.db"
        shutil.copyfile(empty_store, self.db)
        self.skills = SkillsDb(path=str(self.db))
        self.warehouse = Warehouse(database=str(folder / "warehouse.duckdb"), wait_seconds=0.3)

    def add(self, *invocations: Invocation) -> None:
        with Store.open(self.db) as store:
            assert store.import_batch(invocations).refused == ()

    def add_raw(self, *rows: tuple[Any, ...]) -> None:
        """As another tool does: no companion, no checks."""
        with sqlite3.connect(self.db) as connection:
            connection.executemany(SESSION_BUDDY_INSERT, rows)
        connection.close()

    def load(self) -> events.Loaded:
        with self.warehouse.writing(create=True) as connection:
            return events.load(connection, self.skills)

    def rebuild(self, start: datetime = NOWHERE, end: datetime = NOWHERE) -> time_series.Rebuilt:
        with self.warehouse.writing() as connection:
            return time_series.rebuild_hours(connection, start, end)

    def fold(self) -> int:
        with self.warehouse.writing() as connection:
            return time_series.fold_totals(connection)

    def refresh(self) -> None:
        self.load()
        self.rebuild()
        self.fold()
        with self.warehouse.writing() as connection:
            sets.fold_sets(connection)
            predictor_totals.fold_totals(connection)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with self.warehouse.reading() as connection:
            return connection.execute(query).fetchall()

    def differing(self) -> int:
        """Rows of the grown tables that differ from a recount."""
        with self.warehouse.reading() as connection:
            return sum(audit.all_differing(connection).values())

    def write_back(self, now: datetime | None = None) -> dict[str, Brought]:
        with self.warehouse.writing() as connection, Store.open(self.db) as store:
            return write_back.write_back(connection, store, now or times.now())

    def stored(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the event store, as another tool does."""
        with sqlite3.connect(self.db) as connection:
            rows = connection.execute(query).fetchall()
        connection.close()
        return rows
