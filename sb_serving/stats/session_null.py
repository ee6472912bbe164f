"""What sessions hold, and what they would hold by their margins alone.

Belongs here: counting sessions, skills and pairs, and the null model that keeps session sizes and
skill counts. Does not: tests and intervals for pairs (`sb_serving.stats.lift`) or groups of skills
(`sb_pipelines.training.clusters`), which both compare with this model.

The unit is the session and a skill is in it or not: repeats inside a session are one.

In the model a session of size k holds k distinct skills, drawn without replacement with odds
exp(v_i + s_i * x_k), where x_k is the standardised log size. Sizes are kept exactly, the session
count of every skill in expectation, and so (up to a penalty on s) is the log size of the sessions
that a skill is seen in. It is the both-margin maximum-entropy model logit P = u_s + v_i with two
changes that shuffling and simulation asked for (`docs/statistics/lift.md`): sizes are conditioned
on instead of fitted, since a fitted size expects pairs in sessions of one skill; and s_i lets a
skill prefer short or long sessions, without which every pair that shares that habit looks
associated once there are thousands of sessions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.special import expit

__all__ = [
    "PairCounts",
    "SizeNull",
    "checked_rows",
    "count_pairs",
    "fit_null",
    "session_matrix",
    "with_model_error",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Penalty on s_i as a prior standard deviation, per standard deviation of log size. It keeps the
# slope of a skill seen five times from following noise; from .5 to 2 nothing measured changed.
_SLOPE_SD = 1.0
# Margins agree with the data to this many standard errors of a count before the fit stops.
_FIT_TOLERANCE = 1e-5
_FIT_STEPS = 200
# Standard deviation of the null's relative error. Data made without any association but not by
# this model differ from its expectation by .5 to 1.2 %, which a million sessions would call
# significant; below ten thousand joint sessions it changes nothing.
_MODEL_ERROR = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class PairCounts:
    """What the association functions need to know of the sessions, whatever their number.

    Attributes:
        n_sessions: N, all sessions in the denominator.
        skill_sessions: Sessions that hold each skill, shape (skills,).
        skill_log_size: Sum of ln(size) over the sessions that hold each skill, shape (skills,).
        sizes: The distinct session sizes (skills per session) above 0, shape (sizes,).
        size_sessions: Sessions of each of these sizes, shape (sizes,).
        a: First skill of each pair that was seen together, an index, shape (pairs,).
        b: Second skill of the pair, above `a`, shape (pairs,).
        n_ab: Sessions that hold both, at least 1, shape (pairs,).
    """

    n_sessions: int
    skill_sessions: Ints
    skill_log_size: Floats
    sizes: Ints
    size_sessions: Ints
    a: Ints
    b: Ints
    n_ab: Ints

    def __post_init__(self) -> None:
        held = int(self.skill_sessions.sum())
        by_size = int((self.sizes * self.size_sessions).sum())
        if held != by_size:
            raise ValueError(
                f"skill counts add to {held} and session sizes to {by_size}: "
                "they do not describe the same sessions"
            )
        if self.n_sessions < int(self.size_sessions.sum()):
            raise ValueError(
                f"n_sessions = {self.n_sessions} is below the {int(self.size_sessions.sum())} "
                "sessions that have a size"
            )


def session_matrix(session: ArrayLike, skill: ArrayLike, n_skills: int) -> sparse.csr_array:
    """Return which session holds which skill.

    Args:
        session: Any integer per session, shape (rows,).
        skill: Index of the skill in 0..n_skills-1, shape (rows,). Repeated rows are one.
        n_skills: Number of skills, including those without a row.

    Returns:
        Zeros and ones, shape (sessions, skills); sessions in the order of their integers.

    Raises:
        ValueError: The arrays differ in shape, or a skill is out of range.
    """
    keys, skills = checked_rows(session, skill, n_skills)
    labels, row = np.unique(keys, return_inverse=True)
    matrix = sparse.csr_array(
        (np.ones(len(row), dtype=np.int64), (row, skills)), shape=(len(labels), n_skills)
    )
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


def checked_rows(session: ArrayLike, skill: ArrayLike, n_skills: int) -> tuple[Ints, Ints]:
    """Return sessions and skills as integers; arguments and errors as for `session_matrix`."""
    keys = np.asarray(session, dtype=np.int64)
    skills = np.asarray(skill, dtype=np.int64)
    if keys.shape != skills.shape or keys.ndim != 1:
        raise ValueError(f"session has shape {keys.shape} and skill {skills.shape}")
    if len(skills) and (skills.min() < 0 or skills.max() >= n_skills):
        raise ValueError(f"skill must lie in 0..{n_skills - 1}")
    return keys, skills


def count_pairs(matrix: sparse.csr_array, n_sessions: int | None = None) -> PairCounts:
    """Count sessions, skills and pairs.

    Args:
        matrix: Which session holds which skill, from `session_matrix`, shape (sessions, skills).
        n_sessions: N when sessions without any skill count too; default the sessions seen.

    Returns:
        The counts; every pair that was seen together at least once.
    """
    size = np.asarray(matrix.sum(axis=1), dtype=np.int64).ravel()
    joint = sparse.triu(matrix.T @ matrix, k=1).tocoo()
    order = np.lexsort((joint.col, joint.row))
    sizes, size_sessions = np.unique(size, return_counts=True)
    return PairCounts(
        n_sessions=matrix.shape[0] if n_sessions is None else n_sessions,
        skill_sessions=np.asarray(matrix.sum(axis=0), dtype=np.int64).ravel(),
        skill_log_size=np.asarray(matrix.T @ np.log(size), dtype=np.float64).ravel(),
        sizes=sizes.astype(np.int64),
        size_sessions=size_sessions.astype(np.int64),
        a=joint.row[order].astype(np.int64),
        b=joint.col[order].astype(np.int64),
        n_ab=joint.data[order].astype(np.int64),
    )


@dataclass(frozen=True, slots=True, eq=False)
class SizeNull:
    """The fitted null model: no association beyond session sizes and skill counts.

    Attributes:
        log_odds: v_i + s_i * x_k of each class of skills in each size, shape (sizes, classes).
        class_skills: Skills in each class, shape (classes,).
        skill_class: Class of each skill; -1 for a skill without a session, shape (skills,).
        sizes: Distinct session sizes, shape (sizes,).
        size_sessions: Sessions of each size, shape (sizes,).
        x: Standardised log size, shape (sizes,).
        margin_error: Largest difference between a fitted and an observed skill count, in units of
            the square root of that count; a check on the fit.
    """

    log_odds: Floats
    class_skills: Ints
    skill_class: Ints
    sizes: Ints
    size_sessions: Ints
    x: Floats
    margin_error: float

    def moments(self, skills: Ints) -> tuple[Floats, Floats]:
        """Return mean and variance of the joint sessions of every two of the given skills.

        The variance is that of n_ab once both skills' counts and size totals are known, as they
        are: what a linear fit on these four leaves of the variance over independent sessions. On
        shuffled sessions it is within 2 % of the truth.

        Args:
            skills: Indices of skills with at least one session, shape (n,).

        Returns:
            Two symmetric arrays of shape (n, n); their diagonals have no meaning and are 0.
        """
        if len(skills) == 0:
            return np.zeros((0, 0)), np.zeros((0, 0))
        classes, place = np.unique(self.skill_class[skills], return_inverse=True)
        n = len(classes)
        joint, spread = np.zeros((2, n, n))
        own, cross, tie = np.zeros((3, n)), np.zeros((3, n, n)), np.zeros((2, n, n))
        tilts = _tilts(self.log_odds, self.class_skills, self.sizes)
        for odds, size, weight, x in zip(
            self.log_odds + tilts[:, None], self.sizes, self.size_sessions, self.x, strict=True
        ):
            inclusion = _Inclusion(odds, self.class_skills, int(size))
            p, both = inclusion.single()[classes], inclusion.pairs(classes)
            joint += weight * both
            spread += weight * both * (1.0 - both)
            apart = weight * (both - np.outer(p, p))
            with_row = weight * both * (1.0 - p)[:, None]
            for power in range(3):
                own[power] += weight * x**power * p * (1.0 - p)
                cross[power] += x**power * apart
            for power in range(2):
                tie[power] += x**power * with_row
        variance = np.maximum(spread - _explained(own, cross, tie), 0.0)
        mean: Floats = joint[np.ix_(place, place)]
        left: Floats = variance[np.ix_(place, place)]
        np.fill_diagonal(mean, 0.0)
        np.fill_diagonal(left, 0.0)
        return mean, left


def _explained(own: Floats, cross: Floats, tie: Floats) -> Floats:
    """Return the variance of n_ab that counts and size totals of both skills explain.

    Args:
        own: Variance of a skill's count, its covariance with the size total, the variance of the
            size total, shape (3, n).
        cross: The same between two skills, shape (3, n, n).
        tie: Covariance of n_ab with count and size total of the row skill, shape (2, n, n).

    Returns:
        Symmetric, shape (n, n).
    """
    n = own.shape[1]
    # The size total is known as firmly as the slope is free (see `_SLOPE_SD`). The factor keeps
    # the system solvable where one skill's count determines the other's.
    own = own * np.array([[1 + 1e-9], [1.0], [1 + 1e-9]])
    own += np.array([[1e-9], [0.0], [1.0 / _SLOPE_SD**2]])
    explained = np.empty((n, n))
    for row in range(n):
        margins = np.empty((n, 2, 2, 2, 2))  # pair, skill, count or total, skill, count or total
        for i in range(2):
            for j in range(2):
                margins[:, 0, i, 0, j] = own[i + j, row]
                margins[:, 1, i, 1, j] = own[i + j]
                margins[:, 0, i, 1, j] = margins[:, 1, j, 0, i] = cross[i + j, row]
        with_joint = np.stack([tie[:, row].T, tie[:, :, row].T], axis=1).reshape(n, 4, 1)
        fit = np.linalg.solve(margins.reshape(n, 4, 4), with_joint)
        explained[row] = (with_joint * fit).sum(axis=(1, 2))
    return explained


class _Inclusion:
    """Chances that skills are in a session of exactly `size`, given their odds.

    With independent skills of these odds the session would have a random size S. The chance of a
    skill given S = size is p_i P(S without i = size - 1) / P(S = size), and both probabilities
    are one sum over the characteristic function of S, in which leaving skills out is a division.
    Unlike the recursion for elementary symmetric functions this subtracts nothing, so it is
    accurate for all odds; the odds are tilted beforehand so that S is centred on `size`.
    """

    def __init__(self, log_odds: Floats, class_skills: Ints, size: int) -> None:
        self.certain = size >= int(class_skills.sum())
        self.classes = len(log_odds)
        if self.certain:
            return
        p = expit(log_odds)
        deviation = float(np.sqrt(class_skills @ (p * (1.0 - p))))
        # Enough frequencies that S cannot lie a whole period away, and an odd number of them, so
        # that no factor is 0 (it would be at frequency pi for p = 1/2). Conjugates count twice.
        points = min(int(class_skills.sum()) + 1, 2 * int(6.0 * deviation + 16.0)) | 1
        half = np.arange(points // 2 + 1)
        wave = np.exp(2j * np.pi * half / points)
        factor = 1.0 - p + np.outer(wave, p)
        alone = class_skills == 1
        term = np.prod(factor[:, alone], axis=1) * wave ** (-size)
        term *= np.prod(factor[:, ~alone] ** class_skills[~alone], axis=1)
        term *= np.where(half == 0, 1.0, 2.0)
        self.term = term / term.real.sum()
        self.share = (wave[:, None] * p) / factor

    def single(self) -> Floats:
        """Return the chance of one skill of each class, shape (classes,)."""
        if self.certain:
            return np.ones(self.classes)
        chances: Floats = np.clip((self.term @ self.share).real, 0.0, 1.0)
        return chances

    def pairs(self, classes: Ints) -> Floats:
        """Return the chance that two skills are both in, by their classes, shape (n, n)."""
        if self.certain:
            return np.ones((len(classes), len(classes)))
        share = self.share[:, classes]
        chances: Floats = np.clip(((share.T * self.term) @ share).real, 0.0, 1.0)
        return chances


def _tilts(log_odds: Floats, class_skills: Ints, sizes: Ints) -> Floats:
    """Return for each size the shift of the log odds that makes it the expected size.

    Any shift gives the same conditional chances; this one keeps them away from rounding. By
    bisection between the shifts that would be right if all odds were the largest, or smallest.
    """
    total = float(class_skills.sum())
    middle = np.log(sizes / np.maximum(total - sizes, 0.5))
    low = middle - log_odds.max(axis=1)
    high = middle - log_odds.min(axis=1)
    for _ in range(40):
        tilt = (low + high) / 2.0
        above = expit(log_odds + tilt[:, None]) @ class_skills > sizes
        high = np.where(above, tilt, high)
        low = np.where(above, low, tilt)
    result: Floats = (low + high) / 2.0
    return result


def fit_null(counts: PairCounts, *, own_slope_from: int = 5) -> SizeNull:
    """Fit the null model that keeps session sizes and skill counts.

    Iterative scaling with the two parameters of a skill moved together: each step divides the
    distance of its margins by their variance under the current model. That ignores the other
    skills of the session, which move against it. With few skills the step can be up to twice too
    long (the covariances of a row sum to 0), so it is halved from the first time it does not help.

    Args:
        counts: The margins.
        own_slope_from: Skills in fewer sessions than this share one class per count.

    Returns:
        The fitted model.
    """
    used = np.flatnonzero(counts.skill_sessions > 0)
    n_all = counts.skill_sessions[used]
    x, skill_x = _standardised_log_size(counts)
    # Skills that no test will look at are grouped by count: thousands of rare names cost as much
    # as a handful.
    label = np.where(n_all >= own_slope_from, used, -n_all)
    _, skill_class, class_skills = np.unique(label, return_inverse=True, return_counts=True)
    n = np.bincount(skill_class, weights=n_all) / class_skills
    target = np.bincount(skill_class, weights=skill_x[used]) / class_skills

    v = np.log((n + 0.5) / (counts.size_sessions.sum() - n + 0.5))
    slope = np.zeros(len(n))
    error = 0.0 if len(n) == 0 else np.inf
    penalty = 1.0 / _SLOPE_SD**2
    steps, length = 0, 1.0
    while error > _FIT_TOLERANCE and steps < _FIT_STEPS:
        steps += 1
        before = error
        moments = _margin_moments(v + np.outer(x, slope), class_skills, counts, x)
        off_count = n - moments[0]
        off_size = target - moments[1] - penalty * slope
        var_count = moments[2] + 1e-9 * n
        cross, var_size = moments[3], moments[4] + penalty
        error = float(np.max(np.maximum(np.abs(off_count), np.abs(off_size)) / np.sqrt(n)))
        length = 0.5 if error >= before else length
        scale = length / (var_count * var_size - cross**2)
        v = v + np.clip((var_size * off_count - cross * off_size) * scale, -3.0, 3.0)
        slope = slope + np.clip((var_count * off_size - cross * off_count) * scale, -3.0, 3.0)
        # The model does not change when all v, or all slopes, move together: pin both.
        v -= np.average(v, weights=class_skills)
        slope -= np.average(slope, weights=class_skills)
    full_class = np.full(len(counts.skill_sessions), -1, dtype=np.int64)
    full_class[used] = skill_class
    return SizeNull(
        log_odds=v + np.outer(x, slope),
        class_skills=class_skills.astype(np.int64),
        skill_class=full_class,
        sizes=counts.sizes,
        size_sessions=counts.size_sessions,
        x=x,
        margin_error=error,
    )


def _standardised_log_size(counts: PairCounts) -> tuple[Floats, Floats]:
    """Return x_k per size and its sum over each skill's sessions.

    Weighted by size, so that mean 0 and variance 1 hold over the (session, skill) rows.
    """
    log_size = np.log(counts.sizes)
    weight = counts.sizes * counts.size_sessions
    if len(weight) == 0:
        return log_size, np.zeros(len(counts.skill_sessions))
    mean = float(np.average(log_size, weights=weight))
    deviation = float(np.sqrt(np.average((log_size - mean) ** 2, weights=weight)))
    scale = deviation if deviation > 0 else 1.0
    return (log_size - mean) / scale, (counts.skill_log_size - mean * counts.skill_sessions) / scale


def _margin_moments(log_odds: Floats, class_skills: Ints, counts: PairCounts, x: Floats) -> Floats:
    """Return sums over sessions of P, P x, and of P(1-P) times 1, x, x^2; shape (5, classes)."""
    moments = np.zeros((5, log_odds.shape[1]))
    tilts = _tilts(log_odds, class_skills, counts.sizes)
    for odds, size, weight, at in zip(
        log_odds + tilts[:, None], counts.sizes, counts.size_sessions, x, strict=True
    ):
        p = _Inclusion(odds, class_skills, int(size)).single()
        moments[0] += weight * p
        moments[1] += weight * at * p
        spread = weight * p * (1.0 - p)
        moments[2] += spread
        moments[3] += at * spread
        moments[4] += at**2 * spread
    return moments


def with_model_error(expected: Floats, variance: Floats) -> Floats:
    """Return the variance of n_ab with the null model's own error added.

    Args:
        expected: Joint sessions by the null model, any shape.
        variance: Their variance under the model, same shape; at most a rounding error where the
            margins leave no freedom.

    Returns:
        Same shape; 0 where the margins leave no freedom.
    """
    return np.where(variance > 1e-6, variance + (_MODEL_ERROR * expected) ** 2, 0.0)
