"""`skill_clusters` and `skill_cluster_membership`: groups of skills that are used together.

Here: sessions out of the sets, ids that last from run to run, and the two tables. The method is
`sb_pipelines.training.clusters`, its meaning `docs/statistics/clusters.md`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import dagster as dg
import duckdb
import numpy as np
from numpy.typing import NDArray

from sb_pipelines import plots, tables
from sb_pipelines.defs.automation import SLOW_GROUP
from sb_pipelines.defs.checks import no_broken_rows
from sb_pipelines.defs.dependencies import choose_skills
from sb_pipelines.resources import (
    OWNERS,
    POOL,
    RETRIES,
    Warehouse,
    set_watermark,
    user_failures,
    watermark,
)
from sb_serving import sql, times
from sb_serving.settings import Settings

if TYPE_CHECKING:
    from sb_pipelines.training.clusters import Clustering

TABLES = ("skill_clusters", "skill_cluster_membership")

NEWS = 0.01
"""Share of new invocations from which the groups are formed anew. They take seconds whatever the
news, and resampling the sessions moves them more than so few can; `stability` says how much."""

LAST_ID = "last_cluster_id"
"""The watermark that keeps the highest id ever given: a group that is gone leaves its id unused."""

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sessions:
    """What the groups are formed on.

    Attributes:
        names: Names of the skills, numbered by their order.
        kinds: Their kinds.
        n_sessions: Sessions that hold each skill, all of them, shape (skills,).
        session: A number per session, shape (rows,); of a random part where there are very many.
        skill: Number of the skill, shape (rows,).
        previous: Group of each skill in the last run.
        last_id: The highest id that a group ever had.
        created: When each group of the last run was first seen.
        watermark_id: Every invocation up to this id is in.
    """

    names: list[str]
    kinds: list[str]
    n_sessions: Ints
    session: Ints
    skill: Ints
    previous: dict[str, int]
    last_id: int
    created: dict[int, datetime]
    watermark_id: int


def read_sessions(connection: duckdb.DuckDBPyConnection, most: int, seed: int = 0) -> Sessions:
    """Read which session holds which skill.

    Args:
        connection: The warehouse; one for reading will do.
        most: Sessions to read at most, drawn at random: the method looks at no more.
        seed: Of the draw; the same sessions and seed give the same rows.
    """
    choose_skills(connection)
    found = connection.execute(sql.load("warehouse/skill_sessions.sql")).fetchnumpy()
    found = {name: column[np.ma.getdata(found["chosen"])] for name, column in found.items()}
    number = np.ma.getdata(found["skill"]).astype(np.int64)
    ((last,),) = connection.execute(
        "select coalesce(max(session), 0) from session_skill"
    ).fetchall()
    drawn = np.sort(np.random.default_rng(seed).permutation(last)[:most] + 1)
    drawn_sessions = {"session": drawn}  # noqa: F841 (DuckDB finds it by its name)
    rows = connection.execute(
        "select s.session, s.skill from session_skill s"
        " join drawn_sessions d on d.session = s.session"
        " join chosen_skills k on k.skill = s.skill order by s.session, s.skill"
    ).fetchnumpy()
    place = np.zeros(int(number.max(initial=0)) + 1, dtype=np.int64)
    place[number] = np.arange(len(number))
    known, _ = watermark(connection, "sets")
    return Sessions(
        names=[str(name) for name in found["skill_name"]],
        kinds=[str(kind) for kind in found["kind"]],
        n_sessions=np.ma.getdata(found["n"]).astype(np.int64),
        session=np.ma.getdata(rows["session"]).astype(np.int64),
        skill=place[np.ma.getdata(rows["skill"]).astype(np.int64)],
        previous=dict(
            connection.execute(
                "select skill_name, cluster_id from skill_cluster_membership order by skill_name"
            ).fetchall()
        ),
        last_id=watermark(connection, LAST_ID)[0],
        created=dict(
            connection.execute("select cluster_id, created_at from skill_clusters").fetchall()
        ),
        watermark_id=known,
    )


def update(warehouse: Warehouse, now: datetime) -> Clustering | None:
    """Compute both tables anew, unless hardly anything is new.

    Args:
        warehouse: Closed while the groups are formed, so that others may write it.
        now: When, naive UTC.

    Returns:
        The groups; None where they were kept, since less than `NEWS` of all invocations came after
        them.
    """
    from sb_pipelines.training import clusters as method

    with warehouse.reading() as connection:
        known, _ = watermark(connection, "sets")
        formed, _ = watermark(connection, "skill_clusters")
        if formed and known - formed < NEWS * known:
            return None
        sessions = read_sessions(connection, method.MAX_SESSIONS)
    found = method.cluster_skills(
        sessions.names,
        sessions.session,
        sessions.skill,
        previous=sessions.previous,
        last_id=sessions.last_id,
    )
    last_id = max([sessions.last_id, *(member.cluster_id for member in found.clusters)])
    with warehouse.writing() as connection:
        tables.replace(connection, "skill_clusters", _clusters(found, sessions, now))
        tables.replace(connection, "skill_cluster_membership", _members(found, sessions, now))
        for table in TABLES:
            set_watermark(connection, table, sessions.watermark_id, now)
        set_watermark(connection, LAST_ID, last_id, now)
    return found


def _clusters(found: Clustering, sessions: Sessions, now: datetime) -> list[dict[str, Any]]:
    sizes = Counter((member.cluster_id, member.cluster_name) for member in found.clusters)
    shuffled = found.shuffled_scores
    return [
        {
            "cluster_id": cluster_id,
            "cluster_name": name,
            "description": f"{skills} skills of {len(found.clusters)} in {found.k} groups, "
            f"from {found.n_sessions:,} sessions",
            "skills": skills,
            "centroid": found.centroids[cluster_id].astype("<f4").tobytes(),
            "created_at": sessions.created.get(cluster_id, now),
            "k": found.k,
            "largest_share": found.largest_share,
            "stability": found.stability,
            "structure": found.structure,
            "score": found.score,
            "shuffled_score": float(np.mean(shuffled)) if shuffled else None,
            "n_sessions": found.n_sessions,
            "left_out": len(found.left_out),
            "last_updated": now,
        }
        for (cluster_id, name), skills in sorted(sizes.items())
    ]


def _members(found: Clustering, sessions: Sessions, now: datetime) -> list[dict[str, Any]]:
    kinds = dict(zip(sessions.names, sessions.kinds, strict=True))
    n_sessions = dict(zip(sessions.names, sessions.n_sessions.tolist(), strict=True))
    return [
        {
            "skill_name": member.skill_name,
            "kind": kinds[member.skill_name],
            "cluster_id": member.cluster_id,
            "membership_score": member.membership_score,
            "n_sessions": n_sessions[member.skill_name],
            "last_updated": now,
        }
        for member in found.clusters
    ]


def plot(found: Clustering) -> str:
    """The groups by size."""
    sizes = Counter(f"{m.cluster_id} {m.cluster_name}" for m in found.clusters)
    rows = [(name, float(n), f"{n} skills") for name, n in sizes.most_common()]
    return plots.bars(rows, max(sizes.values(), default=1))


def _spec(table: str, description: str) -> dg.AssetSpec:
    return dg.AssetSpec(
        table,
        deps=["session_skill", "skill_session_size", "skill_totals"],
        group_name=SLOW_GROUP,
        owners=OWNERS,
        kinds={"python", "duckdb"},
        description=description,
    )


@dg.multi_asset(
    specs=[
        _spec("skill_clusters", "One row per group of skills that are used together."),
        _spec("skill_cluster_membership", "One row per skill: its group, and how firmly it is in."),
    ],
    name="clusters",
    pool=POOL,
    retry_policy=RETRIES,
)
def clusters(warehouse: Warehouse) -> Iterator[dg.MaterializeResult]:  # type: ignore[type-arg]
    """Form the groups, and say whether there are any."""
    with user_failures():
        found = update(warehouse, times.now().replace(tzinfo=None))
    if found is None:
        for table in TABLES:
            yield dg.MaterializeResult(
                asset_key=table,
                metadata={"kept": f"fewer than {NEWS:.0%} of the invocations are new"},
            )
        return
    yield dg.MaterializeResult(
        asset_key="skill_clusters",
        metadata={
            "dagster/row_count": found.k if found.clusters else 0,
            "structure": found.structure,
            "stability": found.stability if found.stability is not None else "unknown",
            "largest_share": found.largest_share if found.clusters else "unknown",
            "sizes": dg.MetadataValue.md(plot(found)),
        },
    )
    yield dg.MaterializeResult(
        asset_key="skill_cluster_membership",
        metadata={"dagster/row_count": len(found.clusters), "left_out": len(found.left_out)},
    )


clusters_are_possible = no_broken_rows(
    "skill_clusters",
    "clusters_are_possible",
    "every group has its members and every member its group, shares lie in [0, 1]",
)


def defs(settings: Settings) -> dg.Definitions:
    """The assets, made by one step, and their check."""
    return dg.Definitions(assets=[clusters], asset_checks=[clusters_are_possible])
