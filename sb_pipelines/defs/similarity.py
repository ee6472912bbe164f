"""`user_similarity`: who uses what, as arrays, and how recommendations are found.

Here: the table and the arrays that are published. The method and its choice are in
`sb_pipelines.training.recommend` and `sb_serving.stats.similarity`, their meaning in
`docs/statistics/recommend.md`.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import dagster as dg
import duckdb
import numpy as np

from sb_pipelines import plots, tables
from sb_pipelines.defs.automation import SLOW_GROUP
from sb_pipelines.defs.predictor import put_arrays
from sb_pipelines.resources import (
    OWNERS,
    POOL,
    RETRIES,
    Warehouse,
    one_row,
    set_watermark,
    user_failures,
    watermark,
)
from sb_pipelines.training.recommend import count_uses, learn
from sb_serving import times
from sb_serving.recommend import FORMAT, PREFIX, Recommender
from sb_serving.settings import Settings
from sb_serving.stats.similarity import Replay

LEFT_OUT = "tool"
"""Kind that is neither compared nor recommended: everybody uses Read, Edit and Bash."""

DUE_AFTER = timedelta(days=1)
"""By then everything is computed anew even if nothing is new: a new method should not wait."""


def is_due(connection: duckdb.DuckDBPyConnection, now: datetime) -> bool:
    """Whether an event came since the last time, or that was long ago or in another format.

    Args:
        connection: The warehouse.
        now: Naive UTC.
    """
    known, _ = watermark(connection, "events")
    done, at = watermark(connection, "user_similarity")
    if at is None or known != done or now - at >= DUE_AFTER:
        return True
    stored = connection.execute("select data from arrays where name = ?", [f"{PREFIX}format"])
    return stored.fetchall() != [(np.array([FORMAT], dtype=np.int32).tobytes(),)]


def update(warehouse: Warehouse, now: datetime) -> tuple[Recommender, Replay]:
    """Compute table and arrays anew.

    Args:
        warehouse: Closed while the past is replayed, so that others may write it.
        now: Naive UTC.
    """
    with warehouse.reading() as connection:
        uses = count_uses(connection, without=LEFT_OUT, pruned=True)
        known, _ = watermark(connection, "events")
    recommender, replayed = learn(uses)
    columns = zip(
        *(recommender.skills, uses.matrix.users.tolist(), recommender.decided.tolist()),
        *(recommender.completed.tolist(), recommender.completion.tolist()),
        strict=True,
    )
    names = ("skill", "skill_name", "users", "n", "completed", "completion_rate")
    rows = [dict(zip(names, (number, *row), strict=True)) for number, row in enumerate(columns)]
    with warehouse.writing() as connection:
        tables.replace(connection, "user_similarity", rows)
        put_arrays(connection, PREFIX, recommender.arrays())
        set_watermark(connection, "user_similarity", known, now)
    return recommender, replayed


@dg.asset(
    deps=["events"],
    group_name=SLOW_GROUP,
    owners=OWNERS,
    kinds={"python", "duckdb"},
    pool=POOL,
    retry_policy=RETRIES,
)
def user_similarity(warehouse: Warehouse) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """One row per skill of the recommendations; who uses what beside it, as arrays.

    Similar users are not stored: they are found when asked for. Of the two methods the one that
    brings back more hidden skills of past users is served.
    """
    now = times.now().replace(tzinfo=None)
    with user_failures():
        with warehouse.reading() as connection:
            due = is_due(connection, now)
            (rows,) = one_row(connection, "select count(*) from user_similarity")
        if not due:
            return dg.MaterializeResult(metadata={"dagster/row_count": rows, "computed": False})
        recommender, replayed = update(warehouse, now)
    recall = [
        (name, share, f"{share:.3f} (standard error {replayed.error[name]:.3f})")
        for name, share in sorted(replayed.recall.items(), key=lambda one: -one[1])
    ]
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": len(recommender.skills),
            "computed": True,
            "users": len(recommender.users),
            "served": replayed.chosen,
            "users_replayed": replayed.users,
            "hidden_skill_among_the_first_ten": dg.MetadataValue.md(plots.bars(recall, 1.0)),
        }
    )


def defs(settings: Settings) -> dg.Definitions:
    """The asset."""
    return dg.Definitions(assets=[user_similarity])
