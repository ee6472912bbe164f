"""Makes the recommender from who used what, and chooses its method by replaying the past.

Belongs here: from rows of (user, skill) to numbers and arrays, and the choice. Does not: counting
the rows (SQL), the methods and the replay (`sb_serving.stats.similarity`), answering
(`sb_serving.recommend`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sb_serving.recommend import Recommender, user_key
from sb_serving.stats import baseline, similarity

__all__ = ["Uses", "learn"]


@dataclass(frozen=True, slots=True, eq=False)
class Uses:
    """Who uses what and how it ends, numbered. Make one with `from_rows`.

    Attributes:
        skills: Names by number.
        users: Ids by number, as `user_key` makes them.
        matrix: Who uses what.
        completed: Completed runs of each skill, shape (n_skills,).
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

    @classmethod
    def from_rows(
        cls,
        user_id: NDArray[np.object_],
        skill_name: NDArray[np.object_],
        completed: NDArray[np.int64],
        decided: NDArray[np.int64],
        first_at: NDArray[np.int64],
    ) -> Uses:
        """Number rows, at most one per user and skill.

        Args:
            user_id: '' is nobody, whose runs count for completion alone; shape (n,).
            skill_name: Shape (n,).
            completed: Completed runs, shape (n,).
            decided: Completed plus failed runs, shape (n,).
            first_at: When the user took the skill up, in any unit, shape (n,).
        """
        skills, skill = np.unique(skill_name.astype(str), return_inverse=True)
        total, good = (
            np.bincount(skill, weights=counts, minlength=len(skills)).astype(np.int64)
            for counts in (decided, completed)
        )
        keys = np.array([user_key(one) for one in user_id.tolist()], dtype=np.bytes_)
        somebody = keys != b""
        users, user = np.unique(keys[somebody], return_inverse=True)
        own = skill[somebody]
        # Of equal times the skill that comes last by name.
        order = np.lexsort((own, first_at[somebody]))
        return cls(
            skills.tolist(),
            users,
            similarity.UserSkills.from_pairs(user, own, len(users), len(skills)),
            good,
            total,
            baseline.fit(good, total).rate(good, total),
            dict(zip(user[order].tolist(), own[order].tolist(), strict=True)),
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
