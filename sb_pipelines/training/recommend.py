"""Makes the recommender from who used what, and chooses its method by replaying the past.

Belongs here: from events to numbers and arrays, and the choice. Does not: the methods and the
replay (`sb_serving.stats.similarity`), answering (`sb_serving.recommend`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from sb_serving import sql
from sb_serving.recommend import Recommender, user_key
from sb_serving.stats import baseline, similarity

__all__ = ["Uses", "count_uses", "learn"]


@dataclass(frozen=True, slots=True, eq=False)
class Uses:
    """Who uses what and how it ends, numbered.

    Attributes:
        skills: Names by number.
        users: Ids by number, as `user_key` makes them, rising.
        matrix: Who uses what.
        completed: Completed runs of each skill by all users, shape (n_skills,).
        decided: Completed plus failed ones, shape (n_skills,).
        completion: Their rate, shrunk toward that of all skills, shape (n_skills,).
        latest: User -> the skill that the user took up last, by number.
    """

    skills: list[str]
    users: NDArray[np.bytes_]
    matrix: similarity.UserSkills
    completed: NDArray[np.int64]
    decided: NDArray[np.int64]
    completion: NDArray[np.float64]
    latest: Mapping[int, int]


def count_uses(
    connection: duckdb.DuckDBPyConnection, without: str | None = None, *, pruned: bool = False
) -> Uses:
    """Count who uses what.

    Args:
        connection: Has `events`, the warehouse's table or the view of an event file; a temporary
            table is made in it.
        without: A kind of skills that is left out.
        pruned: Whether to add the warehouse's `pruned_users`.
    """
    for query in ("uses", "uses_pruned") if pruned else ("uses",):
        connection.execute(sql.load(f"training/{query}.sql"), {"without": without})

    def columns(query: str) -> dict[str, NDArray[Any]]:
        found = connection.execute(sql.load(f"training/{query}.sql")).fetchnumpy()
        return {name: np.ma.getdata(column) for name, column in found.items()}

    skills, pairs = columns("uses_skills"), columns("uses_pairs")
    keys = [user_key(one) for one in columns("uses_users")["user_id"].tolist()]
    given = np.array(keys, dtype=np.bytes_)
    order = np.argsort(given)  # a long id goes by its hash, which sorts elsewhere
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    user, skill = place[pairs["user_number"]], pairs["skill"]
    completed, decided = skills["completed"], skills["decided"]
    # The last row of a user stays.
    last = np.full(len(order), -1)
    last[user] = skill
    return Uses(
        skills["skill_name"].tolist(),
        given[order],
        similarity.UserSkills.from_pairs(user, skill, len(order), len(completed)),
        completed,
        decided,
        baseline.fit(completed, decided).rate(completed, decided),
        dict(enumerate(last.tolist())),
    )


def learn(uses: Uses, *, seed: int = 0) -> tuple[Recommender, similarity.Replay]:
    """Replay, decide, and make what is served.

    Args:
        uses: Who uses what.
        seed: Which users are replayed where there are many.
    """
    replayed = similarity.replay(uses.matrix, uses.latest, uses.completion, seed=seed)
    weights = None
    if replayed.chosen == "skills_used_together":
        weights = similarity.ease(uses.matrix.together(), replayed.penalty).astype(np.float32)
    recommender = Recommender(
        uses.skills,
        uses.users,
        uses.matrix,
        uses.completed,
        uses.decided,
        uses.completion,
        weights,
    )
    return recommender, replayed
