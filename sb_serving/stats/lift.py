"""Association between skills: which pairs share sessions more often than their margins explain.

Belongs here: lift with its interval, the tests of pairs (together more often, together less
often, one before the other) and the names of the relationship types. Does not: the counts and the
null model that the tests compare with (`sb_serving.stats.session_null`), groups of skills
(`sb_pipelines.training.clusters`), the correction over many tests (`sb_serving.stats.fdr`), and
where the rows come from (the caller).

The test. n_ab given n_a and n_b is compared with Fisher's table for a population of
N* = n_a * n_b / expected sessions: the number of equally sized sessions that would make the
expected joint count what the null says. Its tail is computed in closed form, for counts of five
and of five hundred thousand alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc, ndtr

from sb_serving.stats.fdr import benjamini_hochberg
from sb_serving.stats.session_null import (
    PairCounts,
    SizeNull,
    checked_rows,
    count_pairs,
    fit_null,
    session_matrix,
    with_model_error,
)

__all__ = [
    "EXPECTED_LIFT",
    "Compared",
    "LiftPair",
    "OrderedPair",
    "PairCounts",
    "SizeNull",
    "Substitute",
    "compare_expected",
    "count_pairs",
    "fit_null",
    "lift",
    "lift_columns",
    "order_columns",
    "ordered_counts",
    "ordered_pairs",
    "relationship",
    "session_matrix",
    "substitutes",
    "wilson_ends",
]

EXPECTED_LIFT = 1.5
"""What an expected pair without a number has to exceed: V4's `moderate`."""

_Z95 = NormalDist().inv_cdf(0.975)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LiftPair:
    """One pair of skills that were seen together; `a` sorts before `b`.

    Attributes:
        a: First skill.
        b: Second skill.
        n_sessions: N, all sessions in the denominator.
        n_a: Sessions with `a`.
        n_b: Sessions with `b`.
        n_ab: Sessions with both.
        support: n_ab / N.
        confidence_ab: n_ab / n_a, the share of the sessions with `a` that also hold `b`.
        confidence_ba: n_ab / n_b.
        lift: N * n_ab / (n_a * n_b).
        lift_low: Lower end of the 95 % interval of `lift`.
        lift_high: Upper end.
        expected: Joint sessions that the margins alone predict (the null model's mean of n_ab).
        p_value: Chance of n_ab or more, one-sided: the larger of the chances under independent
            use and under the null model.
        q_value: `p_value` after Benjamini-Hochberg over all testable pairs.
        significant: q_value is at most the requested level.
    """

    a: str
    b: str
    n_sessions: int
    n_a: int
    n_b: int
    n_ab: int
    support: float
    confidence_ab: float
    confidence_ba: float
    lift: float
    lift_low: float
    lift_high: float
    expected: float
    p_value: float
    q_value: float
    significant: bool


@dataclass(frozen=True, slots=True)
class Compared:
    """An expected pair beside what was measured.

    Attributes:
        lift: N * n_ab / (n_a * n_b); None where a skill is in no session.
        low: Lower end of its 95 % interval.
        high: Upper end.
        verdict: `found` (together more often than chance and session sizes explain), `not_found`
            (it was not, and the whole interval lies below the expected lift) or `not_enough_data`.
    """

    lift: float | None
    low: float | None
    high: float | None
    verdict: str


@dataclass(frozen=True, slots=True)
class Substitute:
    """One pair that shares sessions less often than its margins explain; `a` sorts before `b`.

    Attributes:
        a: First skill.
        b: Second skill.
        n_ab: Sessions with both, often 0.
        expected: The smaller of what independence and the null model predict.
        lift: N * n_ab / (n_a * n_b).
        p_value: Chance of n_ab or fewer, one-sided.
        q_value: `p_value` after Benjamini-Hochberg over the pairs expected often enough.
    """

    a: str
    b: str
    n_ab: int
    expected: float
    lift: float
    p_value: float
    q_value: float


@dataclass(frozen=True, slots=True)
class OrderedPair:
    """Which of two skills comes first in the sessions that hold both.

    Attributes:
        first: The skill that more often comes first (by name when neither does).
        then: The other one.
        n_both: Sessions that hold both.
        n_forward: Sessions in which `first` was first used before `then`.
        n_backward: Sessions the other way round.
        n_tied: Sessions that cannot tell: the same time for both.
        share: n_forward / (n_forward + n_backward).
        share_low: Lower end of the 95 % Wilson interval of `share`.
        share_high: Upper end.
        p_value: Two-sided sign test of share = 1/2.
        q_value: `p_value` after Benjamini-Hochberg over the listed pairs.
        significant: q_value is at most the requested level.
    """

    first: str
    then: str
    n_both: int
    n_forward: int
    n_backward: int
    n_tied: int
    share: float
    share_low: float
    share_high: float
    p_value: float
    q_value: float
    significant: bool


def _upper_tail(
    count: Floats, n_a: Floats, n_b: Floats, expected: Floats, variance: Floats | None = None
) -> Floats:
    """Return P(n_ab >= count) given both margins, in a population of n_a * n_b / expected.

    Skovgaard's saddlepoint approximation for lattice variables, in Barndorff-Nielsen's form. For
    a 2 x 2 table it is closed: w, the signed root of the likelihood ratio at count - 1/2, and u,
    the log odds ratio over its standard error, give the normal deviate w + log(u / w) / w. Within
    a few per cent of Fisher's exact test up to a tail of 1e-13 (more at the last possible count),
    and it needs no whole numbers, which an effective population is not. Where the variance is
    known better than from such a table, the deviate is scaled to it.

    Args:
        count: Joint sessions, shape (pairs,).
        n_a: Sessions of the first skill, shape (pairs,).
        n_b: Sessions of the second skill, shape (pairs,).
        expected: Mean of the joint sessions, shape (pairs,).
        variance: Their variance, shape (pairs,); default that of the table.

    Returns:
        One-sided p-values, shape (pairs,).

    Source: Skovgaard (1987), Journal of Applied Probability 24, 875-887; Barndorff-Nielsen
    (1991), Biometrika 78, 557-563.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        population = n_a * n_b / expected
        of_table = _table_variance(n_a, n_b, expected)
        # At the mean itself the formula is 0/0; a twentieth of a standard deviation away is not.
        nudge = 0.05 * np.sqrt(of_table)
        at = count - 0.5
        at = np.where(np.abs(at - expected) < nudge, expected + nudge, at)
        rest = population - n_a - n_b
        cells = np.stack([at, n_a - at, n_b - at, rest + at])
        means = np.stack([expected, n_a - expected, n_b - expected, rest + expected])
        ratio = 2.0 * np.sum(cells * np.log(cells / means), axis=0)
        w = np.sign(at - expected) * np.sqrt(np.maximum(ratio, 0.0))
        odds = np.log(cells[0] * cells[3] / (cells[1] * cells[2]))
        information = np.prod(cells, axis=0) * population
        information /= n_a * (population - n_a) * n_b * (population - n_b)
        u = 2.0 * np.sinh(odds / 2.0) * np.sqrt(information)
        deviate = w + np.log(u / w) / w
        known = of_table if variance is None else variance
        tail = ndtr(-deviate * np.sqrt(of_table / known))
    # Outside, the margins leave n_ab no freedom, or the count lies below all that they allow.
    inside = np.all(cells > 0, axis=0) & np.all(means > 0, axis=0) & (of_table > 0) & (known > 0)
    return np.where(inside, tail, 1.0)


def _lower_tail(
    count: Floats, n_a: Floats, n_b: Floats, expected: Floats, variance: Floats | None = None
) -> Floats:
    """Return P(n_ab <= count): many sessions with a and without b."""
    with np.errstate(divide="ignore", invalid="ignore"):
        without_b = n_a * n_b / expected - n_b
    return _upper_tail(n_a - count, n_a, without_b, n_a - expected, variance)


def _table_variance(n_a: Floats, n_b: Floats, expected: Floats) -> Floats:
    """Return the variance of n_ab given both margins in the effective population."""
    with np.errstate(divide="ignore", invalid="ignore"):
        population = n_a * n_b / expected
        variance = expected * (1 - n_a / population) * (1 - n_b / population)
        variance *= population / (population - 1.0)
    return np.where(np.isfinite(variance), np.maximum(variance, 0.0), 0.0)


def wilson_ends(count: ArrayLike, n: ArrayLike) -> tuple[Floats, Floats]:
    """Return the ends of the 95 % Wilson intervals of many rates, those of `intervals.wilson`.

    Args:
        count: Successes, 0 to n, shape (rates,).
        n: Trials, at least 1, shape (rates,).
    """
    k, total = np.asarray(count, dtype=np.float64), np.asarray(n, dtype=np.float64)
    z2 = _Z95**2
    rate = k / total
    centre = (rate + z2 / (2.0 * total)) / (1.0 + z2 / total)
    half = np.sqrt(z2 * (rate * (1.0 - rate) / total + z2 / (4.0 * total**2)))
    half /= 1.0 + z2 / total
    low = np.where(k == 0, 0.0, np.maximum(centre - half, 0.0))
    high = np.where(k == total, 1.0, np.minimum(centre + half, 1.0))
    return low, high


def _lift_interval(n: float, n_a: Floats, n_b: Floats, n_ab: Floats) -> tuple[Floats, Floats]:
    """Return the ends of the 95 % interval of lift, sessions being independent draws.

    Lift is a rate over a rate: the share of the rarer skill's sessions that hold the other one,
    over that skill's share of all sessions. Each has Wilson's interval; MOVER joins them on the
    log scale with their covariance, which is known: -(1 - share) / max(n_a, n_b).

    Source: Donner and Zou (2012), Statistical Methods in Medical Research 21, 347-359.
    """
    rarer, other = np.minimum(n_a, n_b), np.maximum(n_a, n_b)
    share, base = n_ab / rarer, other / n
    share_low, share_high = wilson_ends(n_ab, rarer)
    base_low, base_high = wilson_ends(other, np.full_like(other, n))
    var_share, var_base = (1.0 - share) / n_ab, (1.0 - base) / other
    spread = np.sqrt(var_share * var_base)
    correlation = np.divide(
        (1.0 - share) / other, spread, out=np.zeros_like(share), where=spread > 0
    )
    down, up = np.log(share / share_low), np.log(share_high / share)
    base_down, base_up = np.log(base / base_low), np.log(base_high / base)
    low = np.sqrt(np.maximum(down**2 + base_up**2 - 2 * correlation * down * base_up, 0.0))
    high = np.sqrt(np.maximum(up**2 + base_down**2 - 2 * correlation * up * base_down, 0.0))
    point = share / base
    return point * np.exp(-low), point * np.exp(high)


def lift(
    names: Sequence[str],
    counts: PairCounts,
    *,
    min_count: int = 5,
    q: float = 0.05,
    null: SizeNull | None = None,
) -> list[LiftPair]:
    """Return every pair of skills seen together in at least `min_count` sessions.

    A pair is significant when it is seen together more often than independent use and more often
    than session sizes and skill counts lead to expect: p is the larger of the two tests' (an
    intersection-union test). The family for q is every pair whose margins could reach `min_count`.

    Args:
        names: Name of each skill, shape (skills,), all different.
        counts: The counts of the same skills.
        min_count: Least number of joint sessions, at least 1.
        q: False discovery rate at which a pair is called significant.
        null: A model already fitted to `counts`; default: fitted here.

    Returns:
        The pairs, the least q-value first, then the highest lift, then by name.

    Raises:
        ValueError: `min_count` is below 1, `q` is not in (0, 1), or `names` has another length.
    """
    columns = lift_columns(names, counts, min_count=min_count, q=q, null=null)
    rows = zip(*(columns[field.name].tolist() for field in fields(LiftPair)), strict=True)
    pairs = [LiftPair(*row) for row in rows]
    return sorted(pairs, key=lambda pair: (pair.q_value, -pair.lift, pair.a, pair.b))


def lift_columns(
    names: Sequence[str],
    counts: PairCounts,
    *,
    min_count: int = 5,
    q: float = 0.05,
    null: SizeNull | None = None,
) -> dict[str, NDArray[Any]]:
    """Return what `lift` does, as one array per field of `LiftPair`, and `pair`.

    Args:
        names: As for `lift`.
        counts: As for `lift`.
        min_count: As for `lift`.
        q: As for `lift`.
        null: As for `lift`.

    Returns:
        By name of the field, shape (listed,), in the order of `counts`; `pair` holds the index of
        each listed pair there.

    Raises:
        ValueError: As for `lift`.
    """
    _check(names, counts, min_count, q)
    frequent = np.flatnonzero(counts.skill_sessions >= min_count)
    pair = np.flatnonzero(counts.n_ab >= min_count)
    if len(pair) == 0:
        return {name: np.zeros(0) for name in ("pair", *(field.name for field in fields(LiftPair)))}
    fitted = fit_null(counts, own_slope_from=min_count) if null is None else null
    at = tuple(np.searchsorted(frequent, skill[pair]) for skill in (counts.a, counts.b))
    expected, variance = (moment[at] for moment in fitted.moments(frequent))
    a, b = _by_name(names, counts.a[pair], counts.b[pair])
    n_a, n_b = (counts.skill_sessions[i].astype(np.float64) for i in (a, b))
    n_ab = counts.n_ab[pair].astype(np.float64)
    n = float(counts.n_sessions)
    p = np.maximum(
        _upper_tail(n_ab, n_a, n_b, expected, with_model_error(expected, variance)),
        _upper_tail(n_ab, n_a, n_b, n_a * n_b / n),
    )
    q_values = benjamini_hochberg(p, m=len(frequent) * (len(frequent) - 1) // 2)
    low, high = _lift_interval(n, n_a, n_b, n_ab)
    named = np.array(names, dtype=object)
    return {
        "pair": pair,
        "a": named[a],
        "b": named[b],
        "n_sessions": np.full(len(pair), counts.n_sessions),
        "n_a": counts.skill_sessions[a],
        "n_b": counts.skill_sessions[b],
        "n_ab": counts.n_ab[pair],
        "support": n_ab / n,
        "confidence_ab": n_ab / n_a,
        "confidence_ba": n_ab / n_b,
        "lift": n * n_ab / (n_a * n_b),
        "lift_low": low,
        "lift_high": high,
        "expected": expected,
        "p_value": p,
        "q_value": q_values,
        "significant": q_values <= q,
    }


def compare_expected(
    n_sessions: int,
    n_a: int,
    n_b: int,
    n_ab: int,
    *,
    expected_lift: float | None,
    significant: bool,
) -> Compared:
    """Compare one pair that somebody expects to go together with what was measured.

    Args:
        n_sessions: N, all sessions.
        n_a: Sessions with one skill, 0 or more.
        n_b: Sessions with the other one.
        n_ab: Sessions with both.
        expected_lift: The lift that is expected; None for `EXPECTED_LIFT`.
        significant: Whether `lift` found the pair.

    Returns:
        Lift, its interval and the verdict. That a pair was found says nothing of its strength: the
        expected lift may still lie outside the interval.
    """
    if n_a == 0 or n_b == 0:
        return Compared(None, None, None, "not_enough_data")
    value = n_sessions * n_ab / (n_a * n_b)
    if n_ab:
        margins = (np.array([float(n)]) for n in (n_a, n_b, n_ab))
        low, high = (float(end[0]) for end in _lift_interval(float(n_sessions), *margins))
    else:
        # The log scale has no centre at 0: the largest share over the least base.
        rarer, other = min(n_a, n_b), max(n_a, n_b)
        low = 0.0
        high = float(wilson_ends(0, rarer)[1] / wilson_ends(other, n_sessions)[0])
    if significant:
        return Compared(value, low, high, "found")
    least = EXPECTED_LIFT if expected_lift is None else expected_lift
    return Compared(value, low, high, "not_found" if high < least else "not_enough_data")


def substitutes(
    names: Sequence[str],
    counts: PairCounts,
    *,
    min_expected: float = 5.0,
    q: float = 0.05,
    null: SizeNull | None = None,
) -> list[Substitute]:
    """Return the pairs that share sessions significantly less often than expected.

    The mirror of `lift`: p is the larger of the two tests', and the family is every pair for
    which both expect at least `min_expected`, so a pair never seen together can be found. Skills
    that replace each other look like this; so do skills of different projects.

    Args:
        names: Name of each skill, shape (skills,), all different.
        counts: The counts of the same skills.
        min_expected: Least number of expected joint sessions, above 0.
        q: False discovery rate.
        null: A model already fitted to `counts`; default: fitted here.

    Returns:
        The significant pairs, the least q-value first, then by name.

    Raises:
        ValueError: As for `lift`.
    """
    _check(names, counts, min_expected, q)
    frequent = np.flatnonzero(counts.skill_sessions >= min_expected)
    if len(frequent) < 2:
        return []
    fitted = fit_null(counts) if null is None else null
    mean, variance = fitted.moments(frequent)
    n_all = counts.skill_sessions[frequent].astype(np.float64)
    n = float(counts.n_sessions)
    independent = np.outer(n_all, n_all) / n
    smaller = np.minimum(mean, independent)
    row, column = np.nonzero(np.triu(smaller >= min_expected, k=1))
    expected, pair = smaller[row, column], (row, column)
    # Counted skills are sorted, so pairs keep their order: the first index stays the lower one.
    seen = np.zeros(mean.shape)
    both = np.isin(counts.a, frequent) & np.isin(counts.b, frequent)
    seen[np.searchsorted(frequent, counts.a[both]), np.searchsorted(frequent, counts.b[both])] = (
        counts.n_ab[both]
    )
    n_ab = seen[pair]
    widened = with_model_error(mean[pair], variance[pair])
    p = np.maximum(
        _lower_tail(n_ab, n_all[row], n_all[column], mean[pair], widened),
        _lower_tail(n_ab, n_all[row], n_all[column], independent[pair]),
    )
    q_values = benjamini_hochberg(p)
    a, b = _by_name(names, frequent[row], frequent[column])
    found = [
        Substitute(
            a=str(names[a[i]]),
            b=str(names[b[i]]),
            n_ab=int(n_ab[i]),
            expected=float(expected[i]),
            lift=float(n * n_ab[i] / (n_all[row[i]] * n_all[column[i]])),
            p_value=float(p[i]),
            q_value=float(q_values[i]),
        )
        for i in np.flatnonzero(q_values <= q)
    ]
    return sorted(found, key=lambda pair: (pair.q_value, pair.lift, pair.a, pair.b))


def _check(names: Sequence[str], counts: PairCounts, least: float, q: float) -> None:
    if len(names) != len(counts.skill_sessions):
        raise ValueError(f"{len(names)} names for {len(counts.skill_sessions)} skills")
    if least < 1:
        raise ValueError(f"the least count must be at least 1, not {least}")
    if not 0.0 < q < 1.0:
        raise ValueError(f"q must lie between 0 and 1, not {q}")


def _by_name(names: Sequence[str], a: Ints, b: Ints) -> tuple[Ints, Ints]:
    """Return the two skills of every pair in the order of their names."""
    rank = np.empty(len(names), dtype=np.int64)
    rank[np.argsort(np.asarray(names, dtype=object), kind="stable")] = np.arange(len(names))
    swap = rank[a] > rank[b]
    return np.where(swap, b, a), np.where(swap, a, b)


def ordered_pairs(
    names: Sequence[str],
    session: ArrayLike,
    skill: ArrayLike,
    at: ArrayLike,
    *,
    min_count: int = 5,
    q: float = 0.05,
) -> list[OrderedPair]:
    """Return for every frequent pair which skill is first used before the other.

    Only the first use of a skill in a session counts. A share far from 1/2 says that one skill
    tends to come before the other, not that it leads to it: a skill that opens every session
    precedes everything.

    Args:
        names: Name of each skill, shape (skills,), all different.
        session: Any integer per session, shape (rows,).
        skill: Index of the skill, shape (rows,).
        at: When it was used: any number that rises with time, shape (rows,).
        min_count: Least number of sessions that hold both and can tell, at least 1.
        q: False discovery rate.

    Returns:
        The pairs, the least q-value first, then the largest share, then by name.

    Raises:
        ValueError: As for `lift` and `session_matrix`.
    """
    _check_order(min_count, q)
    frequent, before, tied = _count_orders(session, skill, at, len(names), min_count)
    a, b = np.triu_indices(len(frequent), k=1)
    return ordered_counts(
        names,
        frequent[a],
        frequent[b],
        before[a, b],
        before[b, a],
        tied[a, b],
        min_count=min_count,
        q=q,
    )


def ordered_counts(
    names: Sequence[str],
    a: ArrayLike,
    b: ArrayLike,
    n_a_first: ArrayLike,
    n_b_first: ArrayLike,
    n_tied: ArrayLike,
    *,
    min_count: int = 5,
    q: float = 0.05,
) -> list[OrderedPair]:
    """Return what `ordered_pairs` does, from counts that were made elsewhere.

    Args:
        names: Name of each skill, shape (skills,), all different.
        a: First skill of each pair, an index, shape (pairs,); no pair twice.
        b: The other one, shape (pairs,).
        n_a_first: Sessions in which `a` was first used before `b`, shape (pairs,).
        n_b_first: Sessions the other way round, shape (pairs,).
        n_tied: Sessions that cannot tell, shape (pairs,).
        min_count: Least number of sessions that can tell, at least 1.
        q: False discovery rate.

    Returns:
        As `ordered_pairs`.

    Raises:
        ValueError: `min_count` is below 1, or `q` is not in (0, 1).
    """
    columns = order_columns(names, a, b, n_a_first, n_b_first, n_tied, min_count=min_count, q=q)
    rows = zip(*(columns[field.name].tolist() for field in fields(OrderedPair)), strict=True)
    pairs = [OrderedPair(*row) for row in rows]
    return sorted(pairs, key=lambda pair: (pair.q_value, -pair.share, pair.first, pair.then))


def order_columns(
    names: Sequence[str],
    a: ArrayLike,
    b: ArrayLike,
    n_a_first: ArrayLike,
    n_b_first: ArrayLike,
    n_tied: ArrayLike,
    *,
    min_count: int = 5,
    q: float = 0.05,
) -> dict[str, NDArray[Any]]:
    """Return what `ordered_counts` does, as one array per field of `OrderedPair`, and `pair`.

    Args:
        names: As for `ordered_counts`.
        a: As for `ordered_counts`.
        b: As for `ordered_counts`.
        n_a_first: As for `ordered_counts`.
        n_b_first: As for `ordered_counts`.
        n_tied: As for `ordered_counts`.
        min_count: As for `ordered_counts`.
        q: As for `ordered_counts`.

    Returns:
        By name of the field, shape (listed,), in the order of the arguments; `pair` holds the
        index of each listed pair there.

    Raises:
        ValueError: As for `ordered_counts`.
    """
    _check_order(min_count, q)
    forward, backward = (np.asarray(n, dtype=np.int64) for n in (n_a_first, n_b_first))
    pair = np.flatnonzero(forward + backward >= min_count)
    one, other = (np.asarray(skill, dtype=np.int64)[pair] for skill in (a, b))
    forward, backward = forward[pair], backward[pair]
    # The direction seen more often; by name when both are seen equally often.
    name_first, _ = _by_name(names, one, other)
    swap = (forward < backward) | ((forward == backward) & (name_first != one))
    forward, backward = np.maximum(forward, backward), np.minimum(forward, backward)
    ties = np.asarray(n_tied, dtype=np.int64)[pair]
    n = (forward + backward).astype(np.float64)
    p = _sign_test(forward, n)
    q_values = benjamini_hochberg(p)
    low, high = wilson_ends(forward, n)
    named = np.array(names, dtype=object)
    return {
        "pair": pair,
        "first": named[np.where(swap, other, one)],
        "then": named[np.where(swap, one, other)],
        "n_both": forward + backward + ties,
        "n_forward": forward,
        "n_backward": backward,
        "n_tied": ties,
        "share": forward / n,
        "share_low": low,
        "share_high": high,
        "p_value": p,
        "q_value": q_values,
        "significant": q_values <= q,
    }


def _check_order(min_count: int, q: float) -> None:
    if min_count < 1 or not 0.0 < q < 1.0:
        raise ValueError(f"min_count = {min_count} must be at least 1 and q = {q} in (0, 1)")


def _count_orders(
    session: ArrayLike, skill: ArrayLike, at: ArrayLike, n_skills: int, min_count: int
) -> tuple[Ints, Ints, Ints]:
    """Count sessions by which skill of a pair is first used first.

    Returns:
        The skills in at least `min_count` sessions, rising, shape (n,); `before[i, j]`, sessions
        in which the i-th of them strictly precedes the j-th, shape (n, n); `tied[i, j]` for
        i < j, sessions in which both were first used at the same time, shape (n, n).
    """
    keys, skills = checked_rows(session, skill, n_skills)
    times = np.asarray(at)
    if times.shape != keys.shape:
        raise ValueError(f"at has shape {times.shape} and session {keys.shape}")
    by_time = np.argsort(times, kind="stable")
    row = np.unique(keys, return_inverse=True)[1] * n_skills + skills
    # The first place in time of every skill of every session.
    uses, rank = np.unique(row[by_time], return_index=True)
    owner, used = np.divmod(uses, max(n_skills, 1))
    frequent = np.flatnonzero(np.bincount(used, minlength=n_skills) >= min_count)
    place = np.full(n_skills, -1)
    place[frequent] = np.arange(len(frequent))

    kept = np.flatnonzero(place[used] >= 0)
    order = kept[np.argsort(owner[kept] * len(times) + rank[kept])]
    owner, used, moment = owner[order], place[used[order]], times[by_time[rank[order]]]
    n = len(frequent)
    before, tied = np.zeros((2, n * n), dtype=np.int64)
    left = np.arange(len(order))
    for lag in range(1, len(order)):
        left = left[left + lag < len(order)]
        left = left[owner[left] == owner[left + lag]]
        if len(left) == 0:
            break
        one, other = used[left], used[left + lag]
        same = moment[left] == moment[left + lag]
        if same.any():
            low, high = np.minimum(one[same], other[same]), np.maximum(one[same], other[same])
            tied += np.bincount(low * n + high, minlength=n * n)
            one, other = one[~same], other[~same]
        before += np.bincount(one * n + other, minlength=n * n)
    return frequent, before.reshape(n, n), tied.reshape(n, n)


def _sign_test(more: NDArray[np.int64], n: Floats) -> Floats:
    """Return the exact two-sided p-value of `more` of n, `more` at least n / 2, when both are even.

    The upper tail of a fair binomial is a regularised incomplete beta function.
    """
    p: Floats = np.minimum(2.0 * betainc(more, n - more + 1.0, 0.5), 1.0)
    return p


def relationship(lift: float) -> str:
    """Name a lift the way V4's dependency tool and view do; an effect size, not a test.

    Args:
        lift: N * n_ab / (n_a * n_b), at least 0.

    Returns:
        `very_strong` (3 and more), `strong` (2), `moderate` (1.5), `weak_positive` (above 1),
        `independent` (exactly 1), `weak_negative` (above .5) or `moderate_negative`. The view
        says `strong_positive` for the first two and `moderate_positive` for the third.

    Raises:
        ValueError: `lift` is negative or NaN.
    """
    if not lift >= 0.0:
        raise ValueError(f"lift must be at least 0, not {lift}")
    for least, name in ((3.0, "very_strong"), (2.0, "strong"), (1.5, "moderate")):
        if lift >= least:
            return name
    if lift == 1.0:
        return "independent"
    if lift > 1.0:
        return "weak_positive"
    return "weak_negative" if lift > 0.5 else "moderate_negative"
