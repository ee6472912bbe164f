"""A warehouse with every result table of the skills, and the snapshot published from it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from sb_pipelines.defs import (
    baselines,
    clusters,
    dependencies,
    events,
    publish,
    sets,
    time_series,
    trends,
)
from sb_pipelines.resources import SkillsDb, Snapshots, Warehouse
from sb_serving.events import Invocation
from sb_serving.live import Live
from sb_serving.snapshot import SnapshotHolder
from sb_serving.store import Store

NOW = datetime(2026, 11, 22, 15, 20, tzinfo=UTC)
NAIVE = NOW.replace(tzinfo=None)
_NO_WINDOW = datetime(2020, 1, 1)


def at(folder: Path) -> Warehouse:
    """The warehouse of a folder."""
    return Warehouse(database=str(folder / "warehouse.duckdb"))


def refreshed(folder: Path, recorded: Iterable[Invocation]) -> Warehouse:
    """Add records, and bring events, series, totals and sets up to them."""
    with Store.open(folder / "skills.db", create=True) as store:
        store.bulk_import(recorded)
    warehouse = at(folder)
    with warehouse.writing(create=True) as connection:
        events.load(connection, SkillsDb(path=str(folder / "skills.db")))
        time_series.rebuild_hours(connection, _NO_WINDOW, _NO_WINDOW)
        time_series.fold_totals(connection)
        sets.fold_sets(connection)
    return warehouse


def compute(warehouse: Warehouse) -> None:
    """Compute the result tables."""
    trends.update(warehouse, NAIVE)
    with warehouse.writing() as connection:
        baselines.update(connection, NAIVE)
    dependencies.update(warehouse, NAIVE)
    clusters.update(warehouse, NAIVE)


def published(folder: Path) -> Live:
    """A live side of which only the newest snapshot of the folder is there."""
    snapshots = Snapshots(folder=str(folder / "snapshots"))
    publish.publish(at(folder), snapshots, datetime(2024, 1, 1), datetime(2026, 11, 23))
    return cast(Live, SimpleNamespace(snapshots=SnapshotHolder(folder / "snapshots")))
