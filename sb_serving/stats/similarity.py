"""Which skills would suit a user? From what similar users use, or from which skills go together.

Belongs here: the user-by-skill matrix as arrays and its check, the nearest users of one user, the
scores of the two methods (neighbours, and EASE's weights between skills), and the choice between
them by replaying the past. Does not: counting who uses what and how well it ends (SQL), names of
users and skills (the callers).

Neighbours are found when they are asked for: one product of the matrix with the user's row gives
the overlap with everybody, in about 10 ms for a million users. Keeping all pairs would take hours
to compute and be stale at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from sb_serving.errors import SbError

__all__ = [
    "FEWEST",
    "NEAREST",
    "Method",
    "Neighbours",
    "Recommendation",
    "Replay",
    "UserSkills",
    "ease",
    "nearest",
    "neighbour_scores",
    "popular",
    "recommend",
    "replay",
    "skill_scores",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Method = Literal["similar_users", "skills_used_together", "popular"]
Source = Literal["collaborative_filtering", "global_popularity"]

NEAREST = 50
"""Neighbours that vote. The best single one is no better than popularity."""
REPLAYED = 1_000
"""Users of a replay: the standard error of a share is then about .015."""
PENALTIES = (50.0, 200.0, 1_000.0)
"""Ridge penalties of EASE that are tried."""
FEWEST = 5
"""Where fewer people use a skill, or fewer neighbours, no number of theirs is shown: it would tell
of single colleagues. The same as for baselines."""
TOP = 10
"""Places of the list that a replay looks at."""
LARGEST_CATALOGUE = 4_000
"""Skills up to which EASE is tried: its time grows with their third power."""
_AT_ONCE = 1 << 20
_FIX = "Run `sb refresh --models` to publish it again."


@dataclass(frozen=True, slots=True, eq=False)
class UserSkills:
    """Which users use which skills: a sparse matrix of ones. Make one with `from_arrays`.

    Attributes:
        indptr: User u's skills are `indices[indptr[u]:indptr[u + 1]]`; shape (U + 1,).
        indices: Skills by number, each once per user; shape (N,).
        sizes: Skills of each user, shape (U,).
        users: Users of each skill, shape (n_skills,).
        n_skills: Skills in all.
    """

    indptr: NDArray[np.int32]
    indices: NDArray[np.int32]
    sizes: NDArray[np.float32]
    users: Ints
    n_skills: int
    _ones: sparse.csr_array = field(repr=False)

    @classmethod
    def from_arrays(cls, indptr: ArrayLike, indices: ArrayLike, n_skills: int) -> UserSkills:
        """Check arrays and make a matrix of them.

        Args:
            indptr: See the attributes; whole numbers.
            indices: See the attributes; whole numbers.
            n_skills: Skills in all.

        Raises:
            SbError: They are no such matrix; names the array.
        """
        starts, skills = np.asarray(indptr), np.asarray(indices)
        for name, array in (("indptr", starts), ("indices", skills)):
            if array.ndim != 1 or array.dtype.kind not in "iu":
                raise _bad(f"{name} is {array.ndim}-dimensional of type {array.dtype}")
        if len(starts) == 0 or starts[0] != 0 or starts[-1] != len(skills):
            raise _bad(f"indptr does not run from 0 to {len(skills)}, the length of indices")
        if len(skills) >= 2**31:
            raise _bad(f"{len(skills)} entries are too many")
        sizes = np.diff(starts.astype(np.int64))
        if (sizes < 0).any():
            raise _bad(f"indptr falls at user {int(np.argmax(sizes < 0))}")
        if len(skills) and (int(skills.min()) < 0 or int(skills.max()) >= n_skills):
            raise _bad(f"indices name skills outside of 0 to {n_skills - 1}")
        # Rising within each user means that no skill is there twice.
        rises = skills[1:] > skills[:-1]
        rises[starts[1:-1][(starts[1:-1] > 0) & (starts[1:-1] < len(skills))] - 1] = True
        if not rises.all():
            raise _bad("indices of a user do not rise")
        users = np.zeros(n_skills, dtype=np.int64)
        for begin in range(0, len(skills), _AT_ONCE):  # `bincount` makes numbers of 8 bytes
            users += np.bincount(skills[begin : begin + _AT_ONCE], minlength=n_skills)
        skills, starts = skills.astype(np.int32), starts.astype(np.int32)
        # As 32-bit numbers the product with the matrix is twice as fast as with bytes.
        ones = sparse.csr_array(
            (np.ones(len(skills), dtype=np.float32), skills, starts),
            shape=(len(sizes), n_skills),
        )
        return cls(starts, skills, sizes.astype(np.float32), users, n_skills, ones)

    @classmethod
    def from_pairs(cls, user: ArrayLike, skill: ArrayLike, users: int, skills: int) -> UserSkills:
        """The matrix of pairs (user number, skill number), in any order, repeats allowed."""
        pairs = np.unique(np.asarray(user, dtype=np.int64) * skills + np.asarray(skill))
        sizes = np.bincount(pairs // skills, minlength=users)
        return cls.from_arrays(np.append(0, np.cumsum(sizes)), pairs % skills, skills)

    def of(self, user: int) -> Ints:
        """The skills of a user, rising."""
        begin, end = self.indptr[user : user + 2]
        return self.indices[begin:end].astype(np.int64)

    def overlap(self, own: NDArray[np.float32]) -> NDArray[np.float32]:
        """Sum over each user's skills of `own`, shape (U,)."""
        return np.asarray(self._ones @ own)

    def together(self) -> Floats:
        """For every two skills, how many users have both; shape (n_skills, n_skills)."""
        return np.asarray((self._ones.T @ self._ones).toarray(), dtype=np.float64)


class Neighbours(NamedTuple):
    """The users most like one user, nearest first, at most `NEAREST`.

    Attributes:
        user: Their numbers, shape (K,).
        similarity: Jaccard: shared skills / skills of either, above 0, shape (K,).
        shared: Skills shared, shape (K,).
    """

    user: Ints
    similarity: Floats
    shared: Ints


class Recommendation(NamedTuple):
    """One skill that the user does not use yet.

    Attributes:
        skill: Its number.
        score: What the list is sorted by; comparable within one list only.
        completion_rate: Of its runs by all users, shrunk.
        method: How it was found.
        users: Neighbours that use it (`similar_users`), the user's own skills that speak for it
            (`skills_used_together`), or users in all (`popular`).
        of: Neighbours, the user's own skills, or users in all.
        because: The user's own skills that speak most for it, by number, best first;
            `skills_used_together` only.
    """

    skill: int
    score: float
    completion_rate: float
    method: Method
    users: int
    of: int
    because: tuple[int, ...] = ()

    @property
    def source(self) -> Source:
        """Whether it comes from what others like the user do, or from what everybody does."""
        return "global_popularity" if self.method == "popular" else "collaborative_filtering"

    def reason(self, names: Sequence[str], n: int | None, fewest: int = FEWEST) -> str:
        """The reason in words.

        Args:
            names: Of the skills, by number.
            n: Decided runs behind the completion rate; None leaves the rate out.
            fewest: Least number of people that is told.
        """
        if self.method == "skills_used_together":
            text = f"goes with {' and '.join(names[i] for i in self.because)}, which you use"
        elif self.users < fewest:
            whom = "of your nearest" if self.method == "similar_users" else "users"
            text = f"fewer than {fewest} {whom} use it"
        elif self.method == "similar_users":
            text = f"{self.users} of your {self.of} nearest use it"
        else:
            text = f"{self.users:,} of {self.of:,} users use it"
        return text if n is None else f"{text}, {self.completion_rate:.0%} complete, n={n:,}"


class Replay(NamedTuple):
    """What a replay found: share of users whose hidden skill came back among the first `TOP`.

    Attributes:
        users: How many were replayed.
        recall: Method -> share.
        error: Method -> its standard error.
        penalty: EASE's best penalty.
        chosen: The method to serve.
    """

    users: int
    recall: Mapping[str, float]
    error: Mapping[str, float]
    penalty: float
    chosen: Method


def nearest(
    matrix: UserSkills,
    own: ArrayLike,
    *,
    k: int = NEAREST,
    min_shared: int = 1,
    leave_out: int | None = None,
) -> Neighbours:
    """The users whose sets of skills are most like one set.

    Args:
        matrix: Who uses what.
        own: The user's skills by number; negative for skills that nobody in the matrix uses, which
            still make the set larger.
        k: Most neighbours to return.
        min_shared: Least number of skills shared, at least 1.
        leave_out: The user's own number, if it is in the matrix.

    Returns:
        Neighbours; equally similar ones by their number.
    """
    skills = np.unique(np.asarray(own, dtype=np.int64))
    size = len(skills)
    mask = np.zeros(matrix.n_skills, dtype=np.float32)
    mask[skills[skills >= 0]] = 1.0
    shared = matrix.overlap(mask)
    if leave_out is not None:
        shared[leave_out] = 0.0
    least = max(1, min_shared)
    found, similarity = _similar(matrix, shared, size, _level(shared, k, size, least))
    if len(found) > k:
        # Sharing s skills, a user is at most s / size similar. Users of fewer shared skills than
        # the k-th best so far needs cannot come before it; all others are looked at.
        kth = np.partition(similarity, len(similarity) - k)[len(similarity) - k]
        least = max(least, int(np.ceil(kth * size - 1e-9)))
        found, similarity = _similar(matrix, shared, size, least)
    order = np.lexsort((found, -similarity))[:k]
    return Neighbours(found[order], similarity[order], shared[found[order]].astype(np.int64))


def _level(shared: NDArray[np.float32], k: int, size: int, least: int) -> int:
    """The highest number of shared skills that more than k users reach; else `least`."""
    for level in range(size, least, -1):
        if np.count_nonzero(shared >= level) > k:
            return level
    return least


def _similar(
    matrix: UserSkills, shared: NDArray[np.float32], size: int, least: int
) -> tuple[Ints, Floats]:
    """The users who share at least so many skills, and how similar they are."""
    found = np.flatnonzero(shared >= least)
    both = shared[found].astype(np.float64)
    return found, both / (matrix.sizes[found] + size - both)


def neighbour_scores(matrix: UserSkills, neighbours: Neighbours) -> tuple[Floats, Ints]:
    """Votes of the neighbours for each skill.

    Args:
        matrix: Who uses what.
        neighbours: See `nearest`.

    Returns:
        Summed similarity of those who use it, and how many they are, shape (n_skills,) each.
    """
    skills = [matrix.of(user) for user in neighbours.user.tolist()]
    flat = np.concatenate(skills) if skills else np.empty(0, dtype=np.int64)
    weight = np.repeat(neighbours.similarity, [len(one) for one in skills])
    votes = np.zeros(matrix.n_skills)
    np.add.at(votes, flat, weight)
    return votes, np.bincount(flat, minlength=matrix.n_skills)


def ease(together: Floats, penalty: float) -> Floats:
    """Weights between skills: how much having one speaks for another.

    Args:
        together: See `UserSkills.together`; its diagonal holds the users of each skill.
        penalty: Ridge penalty, above 0.

    Returns:
        Shape (n_skills, n_skills), diagonal 0; the scores of a user are the sum of the rows of the
        skills that the user has.

    Source: H. Steck, "Embarrassingly shallow autoencoders for sparse data", WWW 2019, 3251-3257.
    """
    inverse = np.linalg.inv(together + penalty * np.eye(len(together)))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return np.asarray(weights)


def skill_scores(weights: NDArray[np.floating], own: ArrayLike) -> Floats:
    """What a user's skills say for each skill, shape (n_skills,); see `ease`."""
    skills = np.asarray(own, dtype=np.int64)
    return np.asarray(weights[skills[skills >= 0]].sum(axis=0), dtype=np.float64)


def popular(
    users: Ints, everybody: int, completion: Floats, own: ArrayLike, k: int
) -> list[Recommendation]:
    """The skills most used by all, for a user of whom nothing is known.

    Args:
        users: Users of each skill, shape (n_skills,).
        everybody: Users in all.
        completion: Shrunk completion rate of each skill, shape (n_skills,).
        own: The user's skills, which are left out.
        k: How many.

    Returns:
        Skills by share of users times completion rate, best first.
    """
    scores = users / max(everybody, 1) * completion
    return [
        Recommendation(
            skill,
            float(scores[skill]),
            float(completion[skill]),
            "popular",
            int(users[skill]),
            everybody,
        )
        for skill in _best(scores, own, k)
    ]


def recommend(
    matrix: UserSkills,
    own: ArrayLike,
    completion: Floats,
    *,
    k: int = 10,
    min_shared: int = 1,
    weights: NDArray[np.floating] | None = None,
    leave_out: int | None = None,
) -> list[Recommendation]:
    """The skills that suit a user best, best first.

    A skill's score is its support times its shrunk completion rate, so that skills that fail move
    down. Where the method has fewer than k skills to offer, the most popular ones follow.

    Args:
        matrix: Who uses what.
        own: The user's skills by number; negative ones are in no other hands.
        completion: Shrunk completion rate of each skill, shape (n_skills,).
        k: How many at most.
        min_shared: See `nearest`; neighbours only.
        weights: EASE's; None recommends by neighbours.
        leave_out: The user's own number, if it is in the matrix.
    """
    skills = np.unique(np.asarray(own, dtype=np.int64))
    found: list[Recommendation] = []
    if len(skills) and weights is not None:
        scores = skill_scores(weights, skills)
        held = skills[skills >= 0]
        for skill in _best(scores * completion, skills, k):
            speak = held[np.argsort(-weights[held, skill], kind="stable")]
            speak = speak[weights[speak, skill] > 0]
            found.append(
                Recommendation(
                    skill,
                    float(scores[skill] * completion[skill]),
                    float(completion[skill]),
                    "skills_used_together",
                    len(speak),
                    len(held),
                    tuple(speak[:2].tolist()),
                )
            )
    elif len(skills):
        neighbours = nearest(matrix, skills, min_shared=min_shared, leave_out=leave_out)
        scores, users = neighbour_scores(matrix, neighbours)
        found = [
            Recommendation(
                skill,
                float(scores[skill] * completion[skill]),
                float(completion[skill]),
                "similar_users",
                int(users[skill]),
                len(neighbours.user),
            )
            for skill in _best(scores * completion, skills, k)
        ]
    if len(found) < k:
        seen = np.append(skills, [one.skill for one in found]).astype(np.int64)
        more = popular(matrix.users, len(matrix.sizes), completion, seen, k - len(found))
        # Their scores are shares of users: as shares of the last score before them they stay below.
        scale = found[-1].score if found else 1.0
        found += [one._replace(score=scale * one.score) for one in more]
    return found


def replay(
    matrix: UserSkills, hidden: Mapping[int, int], completion: Floats, *, seed: int
) -> Replay:
    """Hide one skill of some users and see which method brings it back.

    Args:
        matrix: Who uses what, the hidden skills included.
        hidden: User -> the skill to hide, the last that the user took up.
        completion: Shrunk completion rates, shape (n_skills,).
        seed: Which users are replayed when there are more than `REPLAYED`.

    Returns:
        Shares and the choice: EASE where it brought more back than the neighbours did.
    """
    users = np.array([user for user in hidden if matrix.sizes[user] > 1], dtype=np.int64)
    if len(users) > REPLAYED:
        users = np.sort(np.random.default_rng(seed).choice(users, REPLAYED, replace=False))
    if len(users) == 0:
        return Replay(0, {}, {}, PENALTIES[0], "similar_users")
    # What is taught must not know the hidden skills: they are taken out for all methods alike.
    taught = _without(matrix, {int(user): hidden[int(user)] for user in users})
    tried = PENALTIES if matrix.n_skills <= LARGEST_CATALOGUE else ()
    together = taught.together() if tried else np.empty((0, 0))
    weights = {penalty: ease(together, penalty) for penalty in tried}
    popularity = taught.users
    hits: dict[str, list[bool]] = {name: [] for name in ("similar_users", "best_single", "popular")}
    hits |= {f"ease_{penalty:g}": [] for penalty in tried}
    for user in users.tolist():
        own, target = taught.of(user), hidden[user]
        neighbours = nearest(taught, own, leave_out=user)
        scores = {
            "similar_users": neighbour_scores(taught, neighbours)[0],
            "best_single": _best_single(taught, neighbours),
            "popular": popularity.astype(np.float64),
        }
        scores |= {f"ease_{p:g}": skill_scores(weights[p], own) for p in tried}
        for name, score in scores.items():
            hits[name].append(target in _best(score * completion, own, TOP))
    recall = {name: float(np.mean(hit)) for name, hit in hits.items()}
    penalty = max(tried, key=lambda p: recall[f"ease_{p:g}"], default=PENALTIES[0])
    ahead = recall.get(f"ease_{penalty:g}", 0.0) > recall["similar_users"]
    return Replay(
        users=len(users),
        recall=recall,
        error={name: float(np.std(hit) / np.sqrt(len(hit))) for name, hit in hits.items()},
        penalty=penalty,
        chosen="skills_used_together" if ahead else "similar_users",
    )


def _best_single(matrix: UserSkills, neighbours: Neighbours) -> Floats:
    """For comparison: a skill counts as much as the nearest of ten users who has it."""
    scores = np.zeros(matrix.n_skills)
    for user, similarity in zip(neighbours.user[:TOP], neighbours.similarity[:TOP], strict=True):
        skills = matrix.of(int(user))
        scores[skills] = np.maximum(scores[skills], similarity)
    return scores


def _best(scores: Floats, own: ArrayLike, k: int) -> list[int]:
    """The k skills of highest score above 0 that are not the user's own; ties by number."""
    open_scores = np.array(scores, dtype=np.float64)
    skills = np.asarray(own, dtype=np.int64)
    open_scores[skills[skills >= 0]] = 0.0
    order = np.argsort(-open_scores, kind="stable")[:k]
    return [int(skill) for skill in order if open_scores[skill] > 0]


def _without(matrix: UserSkills, hidden: Mapping[int, int]) -> UserSkills:
    user = np.repeat(np.arange(len(matrix.sizes)), matrix.sizes.astype(np.int64))
    key = user * matrix.n_skills + matrix.indices
    dropped = [u * matrix.n_skills + skill for u, skill in hidden.items()]
    keep = ~np.isin(key, dropped)
    return UserSkills.from_pairs(
        user[keep], matrix.indices[keep], len(matrix.sizes), matrix.n_skills
    )


def _bad(problem: str) -> SbError:
    return SbError(f"the user-skill matrix is damaged: {problem}", fix=_FIX)
