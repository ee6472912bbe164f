"""Groups of skills that are used together, and whether there are any.

Belongs here: the similarity of skills, the grouping, the choice of the number of groups, the
verdict on whether the grouping is real, names, membership and ids that last from run to run. Does
not: the null model behind the similarity (`sb_serving.stats.session_null`), Dagster, tables.

The similarity of two skills is how many standard deviations their joint sessions lie above what
session sizes and skill counts predict, nothing if they lie below. Spectral clustering groups the
skills, with the labels read off a pivoted QR decomposition, so that there is no random start.

Everything else asks sessions that the grouping has not seen. Groups are formed on two thirds of
the sessions and scored on the last third: the summed deviations of the pairs inside groups.
Splitting a real group loses pairs that still go together there; merging two adds pairs that do
not. The number of groups is the largest whose sum cannot be told from the best one.
There is structure when the sum, per root of the number of pairs, stands clear of what the same
steps give on shuffled sessions, in which every session keeps its size and every skill its count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg, optimize, sparse
from threadpoolctl import threadpool_limits

from sb_serving.stats import session_null

__all__ = [
    "ClusterMember",
    "Clustering",
    "cluster_skills",
    "match_ids",
    "shuffle_margins",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MAX_SESSIONS = 100_000
"""Sessions, drawn at random, from which groups, their number and stability come."""

VERDICT_SESSIONS = 10_000
"""Of these, sessions for the verdict: shuffling is what takes the time."""

MIN_SESSIONS = 20
"""Below this there is no third to score on: the answer is no structure."""

MAX_GROUPS = 20
SHUFFLES = 9
SHUFFLE_TRADES = 12
"""Rounds of re-dealing; after 12 the pair counts vary as they do after 40."""

CLEAR_OF_SHUFFLES = 3.0
"""Standard deviations of the shuffled scores; about one false verdict in a hundred."""

BOOTSTRAPS = 20
_BLOCKS = 100
_FOLDS = 3
_MIN_SKILLS = 4
_REPEATS = 2
# Standard errors by which a sum may fall short of the best and still not be told from it. From 1
# to 2 the groups found were equally good; below, a weak group is at times merged into another.
_SHORT_OF_BEST = 1.5
# Rounds of proportional fitting; the companions then agree within a per mille.
_SCALINGS = 20
# The score has standard deviation 1 in one third, so about .6 over three; a handful of shuffles
# may by chance lie closer together than that.
_SCORE_SD = 0.6
# A group lives on under its id when it shares this much of the union with what it was.
_SAME_GROUP = 1 / 3
_NAMED_AFTER = 3


@dataclass(frozen=True, slots=True)
class ClusterMember:
    """One skill in its group.

    Attributes:
        skill_name: The skill.
        cluster_id: Its group.
        cluster_name: The most typical members of the group.
        membership_score: Share of the skill's similarity that lies inside its group, in [0, 1];
            0 for a skill that goes with no other.
    """

    skill_name: str
    cluster_id: int
    cluster_name: str
    membership_score: float


@dataclass(frozen=True, slots=True, eq=False)
class Clustering:
    """All groups, and how far to trust them.

    Attributes:
        clusters: One row per grouped skill, by group, then membership from high to low.
        k: Number of groups; 1 when no number was asked for and there is no structure.
        largest_share: Share of the grouped skills that the largest group holds; None without any.
        stability: Mean adjusted Rand index between these groups and those of resampled sessions;
            1 is always the same. None with fewer than two groups.
        structure: Whether the groups hold on sessions they were not formed on, beyond what
            shuffled sessions show.
        score: Summed deviations inside groups on unseen sessions, over the square root of the
            number of pairs; about 0 without structure. None when it could not be asked.
        shuffled_scores: The same for each set of shuffled sessions.
        centroids: Per group the mean of its members' unit vectors in the spectral embedding,
            float32, shape (k,).
        left_out: Skills in too few sessions to be grouped.
        n_sessions: Sessions the groups were formed on.
    """

    clusters: tuple[ClusterMember, ...]
    k: int
    largest_share: float | None
    stability: float | None
    structure: bool
    score: float | None
    shuffled_scores: tuple[float, ...]
    centroids: Mapping[int, NDArray[np.float32]]
    left_out: tuple[str, ...]
    n_sessions: int


def cluster_skills(
    names: Sequence[str],
    session: ArrayLike,
    skill: ArrayLike,
    *,
    k: int | None = None,
    min_count: int = 5,
    previous: Mapping[str, int] | None = None,
    last_id: int = 0,
    seed: int = 0,
) -> Clustering:
    """Group skills by the sessions they share.

    Args:
        names: Name of each skill, shape (skills,), all different.
        session: Any integer per session, shape (rows,).
        skill: Index of the skill, shape (rows,); repeats in a session are one.
        k: Number of groups; default: chosen, 1 included.
        min_count: Sessions that a skill needs to be grouped, at least 1.
        previous: Group of each skill in the last run, so that a group which lives on keeps its id.
        last_id: The highest id ever given; new groups get higher ones.
        seed: Of resampling and shuffling; the same rows and seed give the same answer.

    Returns:
        The groups; with nothing to group, none, and `structure` false.

    Raises:
        ValueError: `k` or `min_count` is below 1, there are fewer skills to group than `k`, or
            the rows do not fit `names`.
    """
    if min_count < 1 or (k is not None and k < 1):
        raise ValueError(f"min_count = {min_count} and k = {k} must be at least 1")
    rng = np.random.default_rng(seed)
    # Thousands of small products: a second BLAS thread only waits (five times the CPU, measured).
    with threadpool_limits(limits=1):
        matrix = session_null.session_matrix(session, skill, len(names))
        matrix = _sample(matrix, MAX_SESSIONS, rng)
        model = _Model.fit(matrix, min_count)
        n = len(model.skills)
        if k is not None and k > n:
            raise ValueError(f"k = {k} groups of {n} skills in at least {min_count} sessions")
        evidence = _evidence(matrix, model, k, min_count, rng)
        similarity = np.maximum(model.z(), 0.0)
        labels = _groups(similarity, [evidence.k])[0] if n else np.empty(0, dtype=np.int64)
        sizes = np.bincount(labels)
        stability = _stability(model, labels, rng) if len(sizes) > 1 else None
        group_names = [str(names[i]) for i in model.skills]
        members, ids = _describe(group_names, labels, similarity, previous, last_id)
        centroids = _centroids(similarity, labels, ids)
    return Clustering(
        clusters=members,
        k=len(sizes),
        largest_share=float(sizes.max() / n) if n else None,
        stability=stability,
        structure=evidence.structure,
        score=evidence.score,
        shuffled_scores=evidence.shuffled,
        centroids=centroids,
        left_out=tuple(str(names[i]) for i in np.setdiff1d(np.arange(len(names)), model.skills)),
        n_sessions=matrix.shape[0],
    )


def _sample(matrix: sparse.csr_array, most: int, rng: np.random.Generator) -> sparse.csr_array:
    """Return at most `most` sessions in random order, so that any slice is a random sample."""
    order = rng.permutation(matrix.shape[0])[:most]
    return matrix[order]


@dataclass(frozen=True, slots=True, eq=False)
class _Model:
    """Pair counts by block of sessions beside what the null model expects of them.

    Any resample of the sessions is a weighting of the blocks: the bootstrap and the folds cost a
    weighted sum instead of another pass over the sessions.
    """

    skills: Ints
    expected: Floats
    variance: Floats
    blocks: Floats  # (blocks, skills, skills), joint sessions

    @classmethod
    def fit(cls, matrix: sparse.csr_array, min_count: int) -> _Model:
        """Count and fit; `matrix` must have its sessions in random order."""
        counts = session_null.count_pairs(matrix)
        skills = np.flatnonzero(counts.skill_sessions >= min_count)
        null = session_null.fit_null(counts, own_slope_from=min_count)
        expected, variance = null.moments(skills)
        kept, n_sessions = matrix[:, skills], matrix.shape[0]
        edges = np.linspace(0, n_sessions, min(_BLOCKS, n_sessions) + 1).astype(np.int64)
        blocks = np.empty((len(edges) - 1, len(skills), len(skills)))
        for i, (start, stop) in enumerate(pairwise(edges)):
            rows = kept[start:stop]
            blocks[i] = (rows.T @ rows).toarray()
        return cls(skills, expected, variance, blocks)

    def z(self, weights: Floats | None = None) -> Floats:
        """Return the deviation of every pair, its sessions resampled by block.

        A resample has margins of its own, and a few very long sessions may all fall into it or
        all out of it. So mean and variance are scaled, by a factor per skill, until every skill is
        expected with as many companions as it has in these sessions.

        Args:
            weights: How often each block is drawn, shape (blocks,); default once each.

        Returns:
            Symmetric, shape (skills, skills).
        """
        weights = np.ones(len(self.blocks)) if weights is None else weights
        observed = np.tensordot(weights, self.blocks, axes=1)
        np.fill_diagonal(observed, 0.0)
        companions = observed.sum(axis=1)
        factor = np.ones(len(companions))
        for _ in range(_SCALINGS):
            sums = factor * (self.expected @ factor)
            factor *= np.sqrt(companions / np.where(sums > 0, sums, 1.0))
        scale = np.outer(factor, factor)
        expected = self.expected * scale
        variance = session_null.with_model_error(expected, self.variance * scale)
        free = variance > 0
        return np.where(free, (observed - expected) / np.sqrt(np.where(free, variance, 1.0)), 0.0)


@dataclass(frozen=True, slots=True)
class _Evidence:
    k: int
    structure: bool
    score: float | None
    shuffled: tuple[float, ...]


def _evidence(
    matrix: sparse.csr_array,
    model: _Model,
    k: int | None,
    min_count: int,
    rng: np.random.Generator,
) -> _Evidence:
    """Choose the number of groups and decide whether there are any."""
    n = len(model.skills)
    candidates = list(range(2, min(MAX_GROUPS, n // 2) + 1)) if k is None else [k]
    if matrix.shape[0] < MIN_SESSIONS or n < _MIN_SKILLS or candidates == [1]:
        return _Evidence(min(n, 1) if k is None else k, False, None, ())
    chosen, score = _choose(model, candidates, rng)
    asked = matrix
    if matrix.shape[0] > VERDICT_SESSIONS:
        asked = matrix[:VERDICT_SESSIONS]
        model = _Model.fit(asked, min_count)
        if len(model.skills) < _MIN_SKILLS:
            return _Evidence(1 if k is None else k, False, None, ())
        _, score = _choose(model, candidates, rng)
    shuffled = []
    for _ in range(SHUFFLES):
        asked = _shuffled(asked, rng)
        # Fitted anew: which sizes of session a skill prefers is shuffled away too.
        shuffled.append(_choose(_Model.fit(asked, min_count), candidates, rng)[1])
    clear = (score - float(np.mean(shuffled))) / max(float(np.std(shuffled, ddof=1)), _SCORE_SD)
    structure = clear > CLEAR_OF_SHUFFLES
    return _Evidence(chosen if structure or k is not None else 1, structure, score, tuple(shuffled))


def _choose(
    model: _Model, candidates: Sequence[int], rng: np.random.Generator
) -> tuple[int, float]:
    """Return the number of groups and its score on sessions that did not form them."""
    n_blocks = len(model.blocks)
    inside_sums, scores = [], []
    for _ in range(_REPEATS):
        fold = rng.permutation(n_blocks) % _FOLDS
        for unseen in range(_FOLDS):
            seen = np.maximum(model.z((fold != unseen).astype(np.float64)), 0.0)
            fresh = model.z((fold == unseen).astype(np.float64))
            inside = [_inside(fresh, labels) for labels in _groups(seen, candidates)]
            inside_sums.append([total for total, _ in inside])
            scores.append([total / np.sqrt(max(pairs, 1)) for total, pairs in inside])
    sums = np.array(inside_sums)
    best = int(np.argmax(sums.mean(axis=0)))
    behind = sums[:, [best]] - sums
    # Only the thirds are independent; another division into thirds uses the same sessions.
    error = behind.std(axis=0, ddof=1) / np.sqrt(_FOLDS)
    chosen = int(np.flatnonzero(behind.mean(axis=0) <= _SHORT_OF_BEST * error)[-1])
    return candidates[chosen], float(np.mean(scores, axis=0)[chosen])


def _inside(z: Floats, labels: Ints) -> tuple[float, int]:
    """Return the sum and the number of the pairs inside groups; the diagonal of z is 0."""
    same = labels[:, None] == labels[None, :]
    return float(z[same].sum()) / 2.0, (int(same.sum()) - len(labels)) // 2


def _embedding(similarity: Floats, dimensions: int) -> Floats:
    """Return the spectral embedding that scikit-learn uses, shape (skills, dimensions).

    Leading eigenvectors of the normalised similarity over the square root of the degree; the
    largest entry of each is positive, so that two runs agree.
    """
    degree = similarity.sum(axis=1)
    scale = np.where(degree > 0, 1.0 / np.sqrt(np.where(degree > 0, degree, 1.0)), 0.0)
    n = len(similarity)
    _, vectors = linalg.eigh(
        scale[:, None] * similarity * scale, subset_by_index=[n - dimensions, n - 1]
    )
    placed = vectors[:, ::-1] * scale[:, None]
    peak = np.argmax(np.abs(placed), axis=0)
    result: Floats = placed * np.where(placed[peak, np.arange(dimensions)] < 0, -1.0, 1.0)
    return result


def _groups(similarity: Floats, candidates: Sequence[int]) -> list[Ints]:
    """Return the labels of spectral clustering for each number of groups.

    scikit-learn's `spectral_clustering(assign_labels="cluster_qr")` solves the eigenproblem anew
    for every k; one decomposition serves them all and is twenty times as fast. A test holds the
    two together.

    Source: Damle, Minden and Ying (2019), Information and Inference 8, 181-203.
    """
    vectors = _embedding(similarity, min(max(candidates), len(similarity)))
    found = []
    for k in candidates:
        leading = vectors[:, :k]
        pivots = linalg.qr(leading.T, mode="r", pivoting=True)[1][:k]
        left, _, right = np.linalg.svd(leading[pivots].T)
        labels = np.argmax(np.abs(leading @ (left @ right)), axis=1)
        # A group can stay empty where skills have no similarity at all: close the gaps.
        found.append(np.unique(labels, return_inverse=True)[1].astype(np.int64))
    return found


def _stability(model: _Model, labels: Ints, rng: np.random.Generator) -> float:
    """Return the mean adjusted Rand index to the groups of resampled sessions."""
    from sklearn.metrics import adjusted_rand_score

    n_blocks = len(model.blocks)
    k = int(labels.max()) + 1
    agreement = []
    for _ in range(BOOTSTRAPS):
        drawn = np.bincount(rng.integers(0, n_blocks, n_blocks), minlength=n_blocks)
        again = _groups(np.maximum(model.z(drawn.astype(np.float64)), 0.0), [k])[0]
        agreement.append(adjusted_rand_score(labels, again))
    return float(np.mean(agreement))


def _describe(
    names: Sequence[str],
    labels: Ints,
    similarity: Floats,
    previous: Mapping[str, int] | None,
    last_id: int,
) -> tuple[tuple[ClusterMember, ...], list[int]]:
    """Return the members, named and scored, and the id of each label."""
    same = labels[:, None] == labels[None, :]
    inside = np.where(same, similarity, 0.0).sum(axis=1)
    total = similarity.sum(axis=1)
    score = np.divide(inside, total, out=np.zeros_like(inside), where=total > 0)
    # Larger groups first, then by name, so that fresh ids do not depend on the algebra.
    first_name: dict[int, str] = {}
    for name, group in sorted(zip(names, labels.tolist(), strict=True)):
        first_name.setdefault(group, name)
    size = np.bincount(labels)
    order = sorted(first_name, key=lambda group: (-size[group], first_name[group]))
    current = dict(zip(names, labels.tolist(), strict=True))
    ids = match_ids(previous or {}, current, order, last_id=last_id)
    titles: dict[int, str] = {}
    for group in order:
        typical = np.flatnonzero(labels == group).tolist()
        typical.sort(key=lambda i: (-inside[i], names[i]))
        title = ", ".join(names[i] for i in typical[:_NAMED_AFTER])
        # Skill names may hold commas themselves; V4 wants the names of groups to differ.
        titles[group] = f"{title} ({ids[group]})" if title in titles.values() else title
    members = [
        ClusterMember(names[i], ids[int(g)], titles[int(g)], float(score[i]))
        for i, g in enumerate(labels)
    ]
    members.sort(key=lambda m: (m.cluster_id, -m.membership_score, m.skill_name))
    return tuple(members), [ids[group] for group in range(len(order))]


def match_ids(
    previous: Mapping[str, int],
    current: Mapping[str, Hashable],
    order: Sequence[Hashable] | None = None,
    *,
    last_id: int = 0,
) -> dict[Hashable, int]:
    """Give groups the ids of the earlier groups that they continue.

    A group continues another when the two share at least a third of the skills that either holds;
    among the possible assignments the one with the largest total share is taken (Hungarian
    method). Other groups get ids that were never used.

    Args:
        previous: Earlier group of each skill.
        current: New group of each skill.
        order: The new groups in the order in which fresh ids are given; default: as they come.
        last_id: The highest id ever given, when groups older than `previous` had higher ones.

    Returns:
        The id of every new group, all different.
    """
    groups = list(dict.fromkeys(current.values())) if order is None else list(order)
    old_ids = sorted(set(previous.values()))
    new_size, old_size = Counter(current.values()), Counter(previous.values())
    both = Counter((current[name], previous[name]) for name in current if name in previous)
    shared = np.array(
        [[both[g, i] / (new_size[g] + old_size[i] - both[g, i]) for i in old_ids] for g in groups]
    ).reshape(len(groups), len(old_ids))
    shared[shared < _SAME_GROUP] = 0.0
    rows, columns = optimize.linear_sum_assignment(shared, maximize=True)
    ids = {groups[r]: old_ids[c] for r, c in zip(rows, columns, strict=True) if shared[r, c] > 0}
    fresh = max([last_id, *old_ids]) + 1
    for group in groups:
        if group not in ids:
            ids[group] = fresh
            fresh += 1
    return ids


def _centroids(
    similarity: Floats, labels: Ints, ids: Sequence[int]
) -> dict[int, NDArray[np.float32]]:
    if len(labels) == 0:
        return {}
    vectors = _embedding(similarity, len(ids))
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(length > 0, length, 1.0)
    return {
        ids[group]: unit[labels == group].mean(axis=0).astype(np.float32)
        for group in range(len(ids))
    }


def shuffle_margins(
    session: ArrayLike, skill: ArrayLike, rng: np.random.Generator, trades: int = SHUFFLE_TRADES
) -> tuple[Ints, Ints]:
    """Shuffle skills between sessions; every session keeps its size, every skill its count.

    Global curveball: in each trade all sessions are paired at random, and each pair re-deals the
    skills that only one of the two holds.

    Args:
        session: Session of each row, 0..n-1, shape (rows,).
        skill: Skill of each row, shape (rows,); no row twice.
        rng: Source of randomness.
        trades: Number of rounds.

    Returns:
        The shuffled rows, sessions and skills.

    Source: Carstens, Berger and Strona (2016), arXiv:1609.05137.
    """
    sessions = np.asarray(session, dtype=np.int64).copy()
    skills = np.asarray(skill, dtype=np.int64)
    if len(sessions) == 0:
        return sessions, skills.copy()
    n_sessions, n_skills = int(sessions.max()) + 1, int(skills.max()) + 1
    for _ in range(trades):
        place = np.empty(n_sessions, dtype=np.int64)
        place[rng.permutation(n_sessions)] = np.arange(n_sessions)
        couple = place[sessions] // 2
        key = couple * n_skills + skills
        order = np.argsort(key)
        twice = np.diff(key[order]) == 0
        shared = np.zeros(len(key), dtype=bool)
        shared[order[1:]] |= twice
        shared[order[:-1]] |= twice
        own = np.flatnonzero(~shared)
        # Within a couple: the skills in random order meet the places in order of session.
        dealt = own[np.argsort(couple[own] + rng.random(len(own)))]
        places = own[np.argsort(place[sessions[own]])]
        sessions[dealt] = sessions[places]
    return sessions, skills.copy()


def _shuffled(matrix: sparse.csr_array, rng: np.random.Generator) -> sparse.csr_array:
    rows = matrix.tocoo()
    session, skill = shuffle_margins(rows.row, rows.col, rng)
    return sparse.csr_array(
        (np.ones(len(session), dtype=np.int64), (session, skill)), shape=matrix.shape
    )
