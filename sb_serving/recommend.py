"""Who uses what, as it is published: users who are like one user, and skills that suit them.

Belongs here: the names and numbers around the user-by-skill matrix, reading and writing all of it
as plain arrays, and the lists with their reasons. Does not: the arithmetic (`stats.similarity`),
choosing the method (`sb_pipelines.training.recommend`), caching and hashing ids (`analytics`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sb_serving.errors import SbError
from sb_serving.stats import similarity
from sb_serving.stats.similarity import Method, Source, UserSkills

__all__ = ["LONGEST_ID", "Recommender", "Similar", "Suggestion", "user_key"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LONGEST_ID = 64
"""Bytes of a user id that are kept; a longer one goes by its hash."""
FORMAT = 2
"""Version of the arrays' meaning."""
PREFIX = "user_similarity_"
"""Of the names of its arrays in a snapshot."""
_FIX = "Run `sb refresh --models` to publish it again."


class Similar(NamedTuple):
    """One user who is like another.

    Attributes:
        user_id: As recorded: a keyed hash.
        similarity: Jaccard: skills of both / skills of either.
        shared: Skills of both.
    """

    user_id: str
    similarity: float
    shared: int


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One skill that a user does not use yet.

    Attributes:
        skill_name: The skill.
        score: What the list is sorted by; comparable within one list only.
        completion_rate: completed / (completed + failed) of its runs by all users, shrunk; None
            while no outcome of any skill is known, and where fewer than `similarity.FEWEST` of
            several users use it.
        n: Completed plus failed runs behind the rate; 0 where that is None.
        source: Whether it comes from what others like the user do, or from what everybody does.
        method: How it was found.
        reason: Why, in words.
    """

    skill_name: str
    score: float
    completion_rate: float | None
    n: int
    source: Source
    method: Method
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Recommender:
    """Users, skills, who uses what, and how it ends.

    Attributes:
        skills: Names by number.
        users: Ids by number, as `user_key` makes them, rising; shape (U,).
        matrix: Who uses what.
        completed: Completed runs of each skill by all users, shape (n_skills,).
        decided: Completed plus failed ones, shape (n_skills,).
        completion: Their rate, shrunk toward that of all skills, shape (n_skills,).
        weights: EASE's; None where neighbours are served.
    """

    skills: Sequence[str]
    users: NDArray[np.bytes_]
    matrix: UserSkills
    completed: Ints
    decided: Ints
    completion: Floats
    weights: NDArray[np.float32] | None = None
    _number: Mapping[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Index the names."""
        numbers = {name: number for number, name in enumerate(self.skills)}
        object.__setattr__(self, "_number", numbers)

    def user(self, user_id: str) -> int | None:
        """A user's number; None where unknown."""
        key = user_key(user_id)
        place = int(np.searchsorted(self.users, key))
        return place if place < len(self.users) and self.users[place] == key else None

    def skills_of(self, user_id: str) -> list[str]:
        """The skills that a user has used, by name; empty where the user is unknown."""
        own = self.user(user_id)
        return [] if own is None else [self.skills[i] for i in self.matrix.of(own).tolist()]

    def similar(
        self, user_id: str, used: Sequence[str], *, least: int, limit: int
    ) -> list[Similar]:
        """The users whose sets of skills are most like a user's.

        Args:
            user_id: Whom to leave out.
            used: The user's skills; a name that nobody else has only makes the set larger.
            least: Least number of skills shared, at least 1.
            limit: Most users to return.
        """
        found = similarity.nearest(
            self.matrix,
            self._numbers(used),
            k=limit,
            min_shared=least,
            leave_out=self.user(user_id),
        )
        return [
            Similar(bytes(self.users[user]).decode(), share, shared)
            for user, share, shared in zip(
                found.user.tolist(), found.similarity.tolist(), found.shared.tolist(), strict=True
            )
        ]

    def suggest(
        self, user_id: str, used: Sequence[str], *, k: int, least: int = 1
    ) -> list[Suggestion]:
        """Skills that suit a user, best first; never one that the user has used.

        Args:
            user_id: The user; an unknown one gets what is popular.
            used: The user's skills by name.
            k: Most skills to return.
            least: Least number of skills that a neighbour shares; without meaning for EASE.
        """
        found = similarity.recommend(
            self.matrix,
            self._numbers(used),
            self.completion,
            k=k,
            min_shared=least,
            weights=self.weights,
            leave_out=self.user(user_id),
        )
        fewest = similarity.FEWEST if len(self.users) > 1 else 1
        told = (self.matrix.users >= fewest) & self.decided.any()
        return [
            Suggestion(
                skill_name=self.skills[one.skill],
                score=one.score,
                completion_rate=one.completion_rate if told[one.skill] else None,
                n=int(self.decided[one.skill]) if told[one.skill] else 0,
                source=one.source,
                method=one.method,
                reason=one.reason(
                    self.skills, int(self.decided[one.skill]) if told[one.skill] else None, fewest
                ),
            )
            for one in found
        ]

    def _numbers(self, names: Sequence[str]) -> Ints:
        """Skills by number; a name that is unknown gets a negative one of its own."""
        return np.array(
            [self._number.get(name, -1 - place) for place, name in enumerate(names)],
            dtype=np.int64,
        )

    # --- as arrays

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything but the skills' names as plain arrays; `load` reads them back."""
        width = max(1, self.users.dtype.itemsize)
        mine: dict[str, NDArray[Any]] = {
            "format": np.array([FORMAT], dtype=np.int32),
            "users": np.frombuffer(self.users.tobytes(), dtype=np.uint8).reshape(-1, width),
            "sizes": _small(self.matrix.sizes),
            "indices": _small(self.matrix.indices),
            "completed": self.completed,
            "decided": self.decided,
            "completion": self.completion,
        }
        mine["weights"] = np.empty((0, 0), np.float32) if self.weights is None else self.weights
        return {PREFIX + name: array for name, array in mine.items()}

    @classmethod
    def load(cls, skills: Sequence[str], given: Mapping[str, ArrayLike]) -> Recommender:
        """Read what `arrays` gave.

        Args:
            skills: Names by number.
            given: Arrays by name; `Snapshot.arrays(PREFIX)`.

        Raises:
            SbError: One is missing, damaged or of another version; names it.
        """

        def array(name: str, kind: str, *shape: int) -> NDArray[Any]:
            if PREFIX + name not in given:
                raise _damaged(f"there is no array {PREFIX + name!r}")
            found = np.asarray(given[PREFIX + name])
            fits = len(shape) == found.ndim and all(
                size in (-1, has) for size, has in zip(shape, found.shape, strict=True)
            )
            if found.dtype.kind not in kind or not fits:
                raise _damaged(f"{name} is of type {found.dtype} and shape {found.shape}")
            if found.dtype.kind == "f" and not np.isfinite(found).all():
                raise _damaged(f"{name} has a value that is not finite")
            return found

        version = array("format", "iu", 1)
        if version[0] != FORMAT:
            raise _damaged(f"its format is {version[0]}, this program reads {FORMAT}")
        size = len(skills)
        sizes = array("sizes", "u", -1)
        if len(sizes) and sizes.max() > size:
            raise _damaged(f"a user has {sizes.max()} of {size} skills")
        starts = np.zeros(len(sizes) + 1, dtype=np.int64)
        np.cumsum(sizes, out=starts[1:])
        matrix = UserSkills.from_arrays(starts, array("indices", "u", -1), size)
        table = np.ascontiguousarray(array("users", "u", len(matrix.sizes), -1))
        if table.dtype != np.uint8 or not 1 <= table.shape[1] <= LONGEST_ID:
            raise _damaged(f"users is of type {table.dtype} and width {table.shape[1]}")
        users = table.view(f"S{table.shape[1]}").ravel()
        if (users[1:] <= users[:-1]).any():
            raise _damaged("users do not rise")
        completed, decided = array("completed", "iu", size), array("decided", "iu", size)
        completion = array("completion", "f", size)
        if (completed < 0).any() or (completed > decided).any():
            raise _damaged("completed is no part of decided")
        if (completion < 0).any() or (completion > 1).any():
            raise _damaged("completion is no share")
        weights = array("weights", "f", -1, -1)
        if weights.size and weights.shape != (size, size):
            raise _damaged(f"weights has shape {weights.shape} for {size} skills")
        return cls(
            skills, users, matrix, completed, decided, completion, weights if weights.size else None
        )


def _small(numbers: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers from 0 on in as few bytes each as they need: reading them takes longest."""
    return numbers.astype(np.min_scalar_type(int(numbers.max(initial=0))))


def user_key(user_id: str) -> bytes:
    """A user's id as the arrays hold it."""
    key = user_id.encode()
    return key if len(key) <= LONGEST_ID else blake2b(key, digest_size=16).hexdigest().encode()


def _damaged(problem: str) -> SbError:
    return SbError(f"the recommendations cannot be used: {problem}", fix=_FIX)
