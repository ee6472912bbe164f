"""A small installation with a trained predictor and recommendations."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sb_pipelines.defs import events, predictor, predictor_totals, publish, similarity, time_series
from sb_pipelines.resources import SkillsDb, Snapshots, Warehouse
from sb_pipelines.training import fit
from sb_serving import demo
from sb_serving.recommend import Recommender
from sb_serving.snapshot import Snapshot
from sb_serving.store import Store

NOW = datetime(2026, 11, 22, 15, 20, tzinfo=UTC)
NAIVE = NOW.replace(tzinfo=None)
START = datetime(2020, 1, 1)


@dataclass
class Place:
    """A folder with 3,000 demo runs, a warehouse, and what was learned from it."""

    folder: Path
    learned: fit.Learned
    recommender: Recommender

    @property
    def warehouse(self) -> Warehouse:
        return warehouse_in(self.folder)

    def rows(self, query: str) -> list[dict[str, Any]]:
        with self.warehouse.reading() as connection:
            found = connection.execute(query)
            names = [column[0] for column in found.description or ()]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def publish(self) -> Path:
        snapshots = Snapshots(folder=str(self.folder / "snapshots"))
        path, _ = publish.publish(self.warehouse, snapshots, START, NAIVE)
        return path

    def snapshot(self) -> Snapshot:
        path = self.publish()
        return Snapshot.open(path, int(path.stem))


def warehouse_in(folder: Path) -> Warehouse:
    return Warehouse(database=str(folder / "warehouse.duckdb"))


def make(folder: Path) -> Place:
    """Record, load, train with few trees."""
    plan = demo.DemoPlan(n=3_000, seed=2, end=NOW, days=30, skills=24)
    with Store.open(folder / "skills.db", create=True) as store:
        store.bulk_import(demo.invocations(plan))
    warehouse = warehouse_in(folder)
    with warehouse.writing(create=True) as connection:
        events.load(connection, SkillsDb(path=str(folder / "skills.db")))
        time_series.rebuild_hours(connection, START, START)
        time_series.fold_totals(connection)
        predictor_totals.fold_totals(connection)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "TREES", 20)
        patch.setattr(fit, "BLOCK_TREES", 10)
        learned = predictor.train(warehouse, NAIVE)
        assert learned is not None
        recommender, _ = similarity.update(warehouse, NAIVE)
    return Place(folder, learned, recommender)
