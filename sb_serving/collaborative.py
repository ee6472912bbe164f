"""Similar users and recommendations as the predecessor's Python API: `get_collaborative_engine`.

A cover over `answers.recommendations` with a cache. Ids are hashed at the door: what is kept, and
what `get_similar_users` gives out, are hashes. What is new against the predecessor: similarity
counts distinct skills, answers are copies, failures are errors with a reason.
"""

from __future__ import annotations

import copy
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sb_serving import sql
from sb_serving.answers import recommendations
from sb_serving.answers.published import published
from sb_serving.errors import SbError
from sb_serving.kept import Kept
from sb_serving.live import Live, open_live
from sb_serving.store.pruning import pruned_through

__all__ = [
    "CollaborativeFilteringEngine",
    "CollaborativeFilteringError",
    "get_collaborative_engine",
]

CollaborativeFilteringError = SbError
"""The predecessor's name for what goes wrong here."""

CACHED = 1_000
"""Answers that are held; the one not used for longest goes first."""

Found = TypeVar("Found")


class CollaborativeFilteringEngine:
    """Answers from the newest snapshot and the event store; any number of threads may ask.

    Args:
        db_path: The event store; None for the one of the settings. Snapshots are looked for in
            `snapshots/` beside it.
        cache_ttl_seconds: How long an answer is given again, above 0; a new snapshot ends it.
    """

    def __init__(
        self, db_path: Path | str | None = None, cache_ttl_seconds: float = 3_600.0
    ) -> None:
        if not cache_ttl_seconds > 0:
            raise SbError(f"cache_ttl_seconds = {cache_ttl_seconds!r}", fix="Give seconds above 0.")
        self._live: Live = open_live(db_path)
        self._kept = Kept(recommendations.load_recommender)
        self._seconds = cache_ttl_seconds
        self._lock = threading.Lock()
        self._cache: OrderedDict[tuple[object, ...], tuple[float, Any]] = OrderedDict()

    def get_similar_users(
        self, user_id: str, min_common_skills: int = 3, limit: int = 10
    ) -> list[tuple[str, float]]:
        """The users whose sets of skills are most like a user's.

        Args:
            user_id: A name or its hash.
            min_common_skills: Least number of skills in common, at least 1.
            limit: Most users to return, at least 1.

        Returns:
            Hash and Jaccard similarity (skills of both / skills of either), nearest first.

        Raises:
            SbError: A value is out of range, or nothing was computed yet.
        """
        user = self._live.user(user_id)
        _at_least_one(min_common_skills=min_common_skills, limit=limit)

        def find() -> list[tuple[str, float]]:
            with published(self._live, "user_similarity", command=recommendations.COMMAND) as table:
                one, _ = recommendations.held_recommender(self._kept, table)
                used = recommendations.skills_used(self._live, one, user, table.watermark_id)
                near = one.similar(user, used, least=min_common_skills, limit=limit)
            return [(other.user_id, other.similarity) for other in near]

        return self._cached(find, "similar", user, min_common_skills, limit)

    def recommend_from_similar_users(
        self, user_id: str, limit: int = 5, min_common_skills: int = 1
    ) -> list[dict[str, Any]]:
        """Skills that would suit a user; see `answers.recommendations`.

        Args:
            user_id: A name or its hash.
            limit: Most skills to return, 1 to 200.
            min_common_skills: Least number of skills that a neighbour shares, at least 1. The
                predecessor's 3 leaves a user of two skills without neighbours. Without meaning
                where `method` is `skills_used_together`.

        Returns:
            `skill_name`, `score`, `completion_rate`, `n`, `source`, `method`, `reason`; best first.

        Raises:
            SbError: A value is out of range, or nothing was computed yet.
        """
        user = self._live.user(user_id)
        _at_least_one(min_common_skills=min_common_skills)

        def find() -> list[dict[str, Any]]:
            found = recommendations.collaborative_recommendations(
                self._live,
                self._kept,
                user,
                limit,
                shown_as=user,
                min_common_skills=min_common_skills,
            )
            return [one.model_dump() for one in found.recommendations]

        return self._cached(find, "recommend", user, limit, min_common_skills)

    def get_user_skill_profile(self, user_id: str) -> dict[str, Any]:
        """What a user has done, from the event store.

        Args:
            user_id: A name or its hash.

        Returns:
            `user_id` (the hash), `unique_skills`, `total_interactions`, `completion_rate` =
            completed / (completed + failed) or None, its `n`, and `top_skills`: the ten most used
            with `skill_name`, `interactions`, `completion_rate` and `n`.
        """
        user = self._live.user(user_id)

        def find() -> dict[str, Any]:
            rows: list[tuple[str, int, int, int]] = []
            if user:
                with self._live.reading() as reading:
                    pruned = pruned_through(reading.connection) is not None
                    query = "pruned_user_profile" if pruned else "user_profile"
                    rows = reading.connection.execute(
                        sql.load(f"live/{query}.sql"), {"user": user}
                    ).fetchall()
            completed, decided = sum(row[2] for row in rows), sum(row[3] for row in rows)
            return {
                "user_id": user,
                "unique_skills": len(rows),
                "total_interactions": sum(row[1] for row in rows),
                "completion_rate": completed / decided if decided else None,
                "n": decided,
                "top_skills": [
                    {
                        "skill_name": name,
                        "interactions": n,
                        "completion_rate": good / of if of else None,
                        "n": of,
                    }
                    for name, n, good, of in rows[:10]
                ],
            }

        return self._cached(find, "profile", user)

    def clear_cache(self) -> None:
        """Forget every answer."""
        with self._lock:
            self._cache.clear()

    def _cached(self, find: Callable[[], Found], *key: object) -> Found:
        """The answer of at most `cache_ttl_seconds` ago, or a new one; always a copy."""
        self._live.snapshots.poll()
        current = self._live.snapshots.current
        full = (current.manifest.number if current else None, *key)
        now = time.monotonic()
        with self._lock:
            known = self._cache.get(full)
            if known is not None and now - known[0] < self._seconds:
                self._cache.move_to_end(full)
                found: Found = known[1]
                return copy.deepcopy(found)
        made = find()
        with self._lock:
            self._cache[full] = (now, made)
            self._cache.move_to_end(full)
            while len(self._cache) > CACHED:
                self._cache.popitem(last=False)
        return copy.deepcopy(made)


def get_collaborative_engine(
    db_path: Path | str | None = None, cache_ttl_seconds: float = 3_600.0
) -> CollaborativeFilteringEngine:
    """An engine for one event store; see `CollaborativeFilteringEngine`."""
    return CollaborativeFilteringEngine(db_path, cache_ttl_seconds)


def _at_least_one(**numbers: object) -> None:
    for name, number in numbers.items():
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise SbError(f"{name} = {number!r}", fix="Expected a whole number from 1 on.")
