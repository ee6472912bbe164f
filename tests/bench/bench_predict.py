"""Speed of predictions and recommendations: training, one answer, one user among a million.

`python -m tests.bench.bench_predict [ROWS] [FOLDER]` prints the table, one million rows by default;
a FOLDER is kept, and a store in it already is used again. Training counts its features.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb_pipelines.defs import events, predictor, predictor_totals, publish, time_series
from sb_pipelines.resources import SkillsDb, Snapshots, Warehouse
from sb_pipelines.training import fit
from sb_serving import predict
from sb_serving.answers import success
from sb_serving.live import open_live
from sb_serving.recommend import PREFIX, Recommender
from sb_serving.snapshot import Snapshot, put_array
from sb_serving.snapshot import publish as publish_snapshot
from sb_serving.stats import similarity
from sb_serving.stats.success import FEATURES
from sb_serving.store import reader
from tests.bench import bench_pipeline
from tests.bench.report import Row, markdown

END = datetime(2026, 11, 22, tzinfo=UTC)
NOW = END.replace(tzinfo=None)
NOWHERE = datetime(2020, 1, 1)
SMALL = 10_000
CALLS = 200
USERS, SKILLS, EACH = 1_000_000, 1_000, 20
TRAINED = {10_000: 5.0, 1_000_000: 90.0}
"""Rows -> seconds that a training may take."""


def run(scale: int = 1_000_000, folder: Path | None = None) -> list[Row]:
    """All measurements.

    Args:
        scale: Invocations of the larger store.
        folder: Kept if given.
    """
    with tempfile.TemporaryDirectory() as place:
        home = folder or Path(place)
        rows = installation(home / str(SMALL), SMALL)[:2]
        rows += installation(home / str(scale), scale)
        rows += users(SMALL, 0.5, Path(place) / "few")[:1]
        rows += users(USERS, 25.0, Path(place) / "many")
    return rows


def installation(home: Path, scale: int) -> list[Row]:
    """Training and live answers on a store of so many invocations."""
    home.mkdir(parents=True, exist_ok=True)
    path = home / "skills.db"
    if not path.exists():
        bench_pipeline.fill(path, scale)
    for leftover in ("warehouse.duckdb", "warehouse.duckdb.wal"):
        (home / leftover).unlink(missing_ok=True)
    shutil.rmtree(home / "snapshots", ignore_errors=True)
    warehouse = Warehouse(database=str(home / "warehouse.duckdb"))
    with warehouse.writing(create=True) as connection:
        events.load(connection, SkillsDb(path=str(path)))
        time_series.rebuild_hours(connection, NOWHERE, NOWHERE)
        time_series.fold_totals(connection)
        predictor_totals.fold_totals(connection)
    import sklearn.ensemble  # noqa: F401 (its import is not the training's)

    wall, cpu = time.perf_counter(), time.process_time()
    learned = predictor.train(warehouse, NOW)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert learned is not None
    scan = time.perf_counter()
    with warehouse.reading() as connection:
        connection.execute(
            "select count(distinct skill_name), count(distinct session_id), max(ended_at),"
            " count(distinct user_id), count(distinct outcome) from events"
        ).fetchall()
    scan = time.perf_counter() - scan
    bar = TRAINED.get(scale)
    met = {"bar": f"<= {bar:g} s", "met": wall <= bar} if bar else {}
    rows = [
        Row(f"training on {scale:,} runs", wall, "s", "one scan of the runs", scan, **met),
        Row("  CPU", cpu, "s"),
    ]
    if learned.predictor.model is not None:
        rows += answers(home, warehouse, learned)
    return rows


def answers(home: Path, warehouse: Warehouse, learned: fit.Learned) -> list[Row]:
    """One answer, from features and live."""
    assert learned.predictor.model is not None
    forest = learned.predictor.model.forest
    rows = np.random.default_rng(1).random((CALLS, len(FEATURES)))
    mine = median(lambda row: forest.probability_of(row), list(rows))
    fitted = scikit_learn(rows)
    theirs = median(lambda row: fitted.predict_proba(row[None]), list(rows.astype(np.float32)))
    snapshots = Snapshots(folder=str(home / "snapshots"))
    publish.publish(warehouse, snapshots, NOWHERE, NOW)
    side = open_live(home / "skills.db")
    memory = success.Memory()
    with closing(reader.connect_readonly(home / "skills.db")) as log:
        asked = log.execute(
            "select skill_name, session_id, invoked_at from skill_invocation"
            " order by id desc limit ?",
            (CALLS,),
        ).fetchall()
        floor = median(
            lambda one: log.execute(
                "select count(*) from skill_invocation where session_id = ?", (one[1],)
            ).fetchone(),
            asked,
        )
    questions = [
        predict.Question(name, END - timedelta(seconds=place), session_id=session)
        for place, (name, session, _) in enumerate(asked)
    ]
    whole = median(lambda one: success.success_prediction(side, memory, one), questions)
    return [
        Row(
            "a forest's score from features",
            mine,
            "ms",
            "scikit-learn, same trees and depth",
            theirs,
            bar="<= 0.1 ms",
            met=mine <= 0.1,
        ),
        Row(
            "a whole live answer with its reasons",
            whole,
            "ms",
            "one indexed count",
            floor,
            bar="<= 1 ms",
            met=whole <= 1.0,
        ),
    ]


def scikit_learn(rows: NDArray[np.float64]) -> Any:
    """A forest of the same size."""
    from sklearn.ensemble import RandomForestClassifier

    rng = np.random.default_rng(2)
    past = rng.random((20_000, rows.shape[1])).astype(np.float32)
    outcome = rng.random(len(past)) < past.mean(axis=1)
    return RandomForestClassifier(
        fit.TREES, max_depth=fit.DEPTH, min_samples_leaf=fit.LEAF, n_jobs=1, random_state=0
    ).fit(past, outcome)


def users(count: int, bar: float, folder: Path) -> list[Row]:
    """Neighbours of one user among many, and loading what is published of them."""
    rng = np.random.default_rng(count)
    weight = 1.0 / np.arange(1, SKILLS + 1) ** 0.8
    draws = rng.random((20_000, SKILLS)) ** (1 / weight)
    sets = np.argpartition(-draws, EACH, axis=1)[:, :EACH]
    indices = np.sort(sets[rng.integers(0, len(sets), count)], axis=1).ravel()
    matrix = similarity.UserSkills.from_arrays(
        np.arange(0, EACH * count + 1, EACH), indices, SKILLS
    )
    chosen = rng.integers(0, count, 50).tolist()
    mine = median(lambda one: similarity.nearest(matrix, matrix.of(one), leave_out=one), chosen)
    floor = median(lambda _: matrix.indices.max(), chosen)
    names = [f"skill-{number:04d}" for number in range(SKILLS)]
    ids = np.array([f"{number:032x}".encode() for number in range(count)])
    ones = np.ones(SKILLS, dtype=np.int64)
    recommender = Recommender(names, ids, matrix, ones, ones, np.full(SKILLS, 0.9))

    def build(connection: Any) -> None:
        from sb_serving import sql

        connection.execute(sql.load("warehouse/schema.sql"))
        connection.execute("drop table arrays")
        for name, array in recommender.arrays().items():
            put_array(connection, name, array)

    path = publish_snapshot(
        build, folder, watermark_id=0, watermark_at=END, published_at=END, code_version="bench"
    )
    snapshot = Snapshot.open(path, int(path.stem))
    took = time.perf_counter()
    Recommender.load(names, snapshot.arrays(PREFIX))
    took = time.perf_counter() - took
    plain = time.perf_counter()
    snapshot.arrays(PREFIX)
    plain = time.perf_counter() - plain
    snapshot.close()
    return [
        Row(
            f"the nearest 50 of one among {count:,} users",
            mine,
            "ms",
            "one pass over the matrix",
            floor,
            bar=f"<= {bar:g} ms",
            met=mine <= bar,
        ),
        Row(
            f"loading and checking {count:,} users",
            took,
            "s",
            "reading the arrays",
            plain,
            bar="<= 1 s",
            met=took <= 1.0,
        ),
    ]


def median(call: Callable[[Any], object], arguments: list[Any]) -> float:
    """Milliseconds of a call, the median over its arguments."""
    taken = []
    for argument in arguments:
        begun = time.perf_counter()
        call(argument)
        taken.append(1e3 * (time.perf_counter() - begun))
    return float(np.median(taken))


if __name__ == "__main__":
    scale = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    print(markdown(run(scale, Path(sys.argv[2]) if len(sys.argv) > 2 else None)))
