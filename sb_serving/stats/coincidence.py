"""What moved with a rise of failures: which version, model or project explains it.

Belongs here: counts by attribute value before and after a point in time in, a ranking out. Does
not: finding that point (`changepoint`), nor reading the counts from events.

A version that everybody got on the bad day is not thereby to blame. Each value is tried as the one
thing that matters in two ways: 'runs under it fail at a rate of their own', and 'runs under it
fail at a rate of their own since that day'; every other run shares one rate. The likelihood of all
outcomes under each hypothesis, the rates integrated out, says how well it sorts the failures, and
the hypotheses compete with each other and with 'everything changed that day'. A harmless version
sorts badly: runs under it that lack the cause are fine, and runs with the cause but not the
version fail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
from scipy.special import betaln, gammaln, logsumexp

from sb_serving.stats.fdr import benjamini_hochberg

__all__ = [
    "Coincidence",
    "Share",
    "Suspect",
    "Symptom",
    "ValueCounts",
    "coincident_changes",
    "moved_shares",
]

LEAST_FAILED = 3
"""With fewer failures after the change a value is not a suspect."""

COINCIDENCE = float(np.log(28.0))
"""What a value that was there before pays for having turned bad on just this day of four weeks, and
everything together too. A new value explains the day by itself."""


@dataclass(frozen=True, slots=True)
class ValueCounts:
    """Decided runs of a skill under one value of one attribute.

    Attributes:
        attribute: `agent_version`, `model`, `project_id`, ...; `error_type` for a symptom.
        value: The value.
        n_before: Completed and failed runs before the change; of a symptom, all of the skill.
        failed_before: Failed ones among them; of a symptom, those with this error.
        n_after: The same from the change on.
        failed_after: The same from the change on.
    """

    attribute: str
    value: str
    n_before: int
    failed_before: int
    n_after: int
    failed_after: int


@dataclass(frozen=True, slots=True)
class Suspect:
    """A value that may have caused the rise.

    Attributes:
        counts: Of the value.
        rate_after: Failure rate under the value since the change.
        others_rate_after: Failure rate of all other runs since the change; None without any.
        explained: Share of the additional failures that happened under the value, beyond what
            its runs would have had at the rate before; above 1 where other runs improved.
        p_value: Fisher's exact test, one-sided: under the value runs fail more than other runs
            of the same time; 1 where there are no others.
        q_value: Corrected for the number of suspects.
        weight: Share of the evidence, between 0 and 1, that the value alone sorts good from bad.
    """

    counts: ValueCounts
    rate_after: float
    others_rate_after: float | None
    explained: float
    p_value: float
    q_value: float
    weight: float


@dataclass(frozen=True, slots=True)
class Symptom:
    """An error that became more frequent.

    Attributes:
        counts: Of the error.
        explained: Its share of the rise of the failure rate.
        p_value: Fisher's exact test, one-sided, of its rate after against before.
    """

    counts: ValueCounts
    explained: float
    p_value: float


@dataclass(frozen=True, slots=True)
class Share:
    """A value whose number of calls moved with the number of all.

    Attributes:
        counts: Of the value; every call counts, none is failed.
        explained: Its part of the calls that are missing or too many.
        p_value: Fisher's exact test, one-sided: its share of the calls moved in that direction.
        q_value: Corrected for the number of values.
    """

    counts: ValueCounts
    explained: float
    p_value: float
    q_value: float


@dataclass(frozen=True, slots=True)
class Coincidence:
    """What moved with the change.

    Attributes:
        suspects: Values that fail more than before, most convincing first.
        symptoms: Errors, the one that explains most of the rise first.
        unexplained: Share of the evidence that no value sorts the failures: everything changed.
    """

    suspects: tuple[Suspect, ...]
    symptoms: tuple[Symptom, ...]
    unexplained: float


def coincident_changes(
    total: ValueCounts,
    values: Sequence[ValueCounts],
    symptoms: Sequence[ValueCounts] = (),
) -> Coincidence:
    """Rank what may have caused a rise of failures, and how it shows.

    Args:
        total: All decided runs of the skill; its attribute and value say nothing.
        values: Runs by attribute value; runs without a known value may be missing.
        symptoms: Failures by error type, `n_before` and `n_after` those of `total`.

    Returns:
        Suspects and symptoms; no suspects where failures did not rise.

    Raises:
        ValueError: A count is impossible, or larger than the total; the message names the value.
    """
    for counts in (total, *values, *symptoms):
        _check(counts, total)
    before = total.failed_before / total.n_before if total.n_before else 0.0
    excess = total.failed_after - total.n_after * before
    if excess <= 0:
        return Coincidence((), (), 1.0)
    suspected = [
        counts
        for counts in values
        if counts.failed_after >= LEAST_FAILED and counts.failed_after > counts.n_after * before
    ]
    evidence = np.array([_evidence(counts, total) for counts in suspected] + [_everything(total)])
    weights = np.exp(evidence - logsumexp(evidence))
    p = [_against_others(counts, total) for counts in suspected]
    q = benjamini_hochberg(p)
    suspects = [
        Suspect(
            counts=counts,
            rate_after=counts.failed_after / counts.n_after,
            others_rate_after=_others_rate(counts, total),
            explained=(counts.failed_after - counts.n_after * before) / excess,
            p_value=p[i],
            q_value=float(q[i]),
            weight=float(weights[i]),
        )
        for i, counts in enumerate(suspected)
    ]
    suspects.sort(key=lambda s: (-s.weight, s.p_value, -s.explained, s.counts.attribute))
    shown = [_symptom(counts, total) for counts in symptoms if counts.failed_after]
    shown.sort(key=lambda s: (-s.explained, s.counts.value))
    return Coincidence(tuple(suspects), tuple(shown), float(weights[-1]))


def moved_shares(
    total: ValueCounts, values: Sequence[ValueCounts], expected: float
) -> tuple[Share, ...]:
    """Rank where calls are missing, or too many.

    Args:
        total: All calls of the skill before and after; its attribute and value say nothing.
        values: Calls by attribute value.
        expected: How many calls there should have been after.

    Returns:
        Values that moved with the total, the one that explains most first.

    Raises:
        ValueError: A count is impossible, or larger than the total; the message names the value.
    """
    for counts in (total, *values):
        _check(counts, total)
    change = total.n_after - expected
    if change == 0 or total.n_before == 0:
        return ()
    # Thousands of projects have the same few small counts.
    share_p = cache(partial(_share_p, total, change > 0))
    moved = []
    for counts in values:
        usual = expected * counts.n_before / total.n_before
        explained = (counts.n_after - usual) / change
        if explained > 0:
            moved.append((counts, explained, share_p(counts.n_before, counts.n_after)))
    q = benjamini_hochberg([p for _, _, p in moved])
    shares = [Share(*one, float(q[i])) for i, one in enumerate(moved)]
    shares.sort(key=lambda share: (-share.explained, share.p_value, share.counts.attribute))
    return tuple(shares)


def _share_p(total: ValueCounts, growing: bool, mine_before: int, mine_after: int) -> float:
    mine, n_after = mine_before + mine_after, total.n_after
    n_all = total.n_before + n_after
    if growing:
        return _fisher(mine_after, n_after, mine, n_all)
    return _fisher(n_after - mine_after, n_after, n_all - mine, n_all)


def _check(counts: ValueCounts, total: ValueCounts) -> None:
    name = f"{counts.attribute} {counts.value!r}"
    for n, failed, n_all in (
        (counts.n_before, counts.failed_before, total.n_before),
        (counts.n_after, counts.failed_after, total.n_after),
    ):
        if not 0 <= failed <= n:
            raise ValueError(f"{name}: {failed} failed of {n}")
        if n > n_all:
            raise ValueError(f"{name}: {n} runs of {n_all} in total")


def _marginal(failed: int, n: int) -> float:
    """Log-likelihood of a sequence of outcomes with one rate, integrated by Jeffreys' prior."""
    return float(betaln(failed + 0.5, n - failed + 0.5) - betaln(0.5, 0.5))


def _everything(total: ValueCounts) -> float:
    """One rate before, another since."""
    before = _marginal(total.failed_before, total.n_before)
    return before + _marginal(total.failed_after, total.n_after) - COINCIDENCE


def _evidence(counts: ValueCounts, total: ValueCounts) -> float:
    """The better of 'its own rate always' and 'its own rate since the change'."""
    n, failed = total.n_before + total.n_after, total.failed_before + total.failed_after
    best = -np.inf
    for own_n, own_failed, price in (
        (counts.n_before + counts.n_after, counts.failed_before + counts.failed_after, 0.0),
        (counts.n_after, counts.failed_after, COINCIDENCE if counts.n_before else 0.0),
    ):
        apart = _marginal(own_failed, own_n) + _marginal(failed - own_failed, n - own_n)
        best = max(best, apart - price)
    return best


def _others_rate(counts: ValueCounts, total: ValueCounts) -> float | None:
    others = total.n_after - counts.n_after
    return (total.failed_after - counts.failed_after) / others if others else None


def _against_others(counts: ValueCounts, total: ValueCounts) -> float:
    return _fisher(counts.failed_after, counts.n_after, total.failed_after, total.n_after)


def _symptom(counts: ValueCounts, total: ValueCounts) -> Symptom:
    n_before, n_after = max(total.n_before, 1), max(total.n_after, 1)
    rise = counts.failed_after / n_after - counts.failed_before / n_before
    whole = total.failed_after / n_after - total.failed_before / n_before
    failed = counts.failed_before + counts.failed_after
    p = _fisher(counts.failed_after, total.n_after, failed, total.n_before + total.n_after)
    return Symptom(counts, rise / whole, p)


def _fisher(failed: int, n: int, failed_all: int, n_all: int) -> float:
    """P of at least `failed` failures among n of n_all runs, the failures dealt at random."""
    j = np.arange(failed, min(n, failed_all) + 1, dtype=np.float64)
    ways = _choose(failed_all, j) + _choose(n_all - failed_all, n - j) - _choose(n_all, float(n))
    # The largest is taken out first, so that nothing underflows; one row at a time, logsumexp
    # takes ten times as long.
    largest = ways.max()
    return float(min(np.exp(largest) * np.exp(ways - largest).sum(), 1.0))


def _choose(
    n: float, k: float | np.ndarray[tuple[int], np.dtype[np.float64]]
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Logarithm of n over k; minus infinity where k is out of range."""
    inside = (k >= 0) & (k <= n)
    k = np.where(inside, k, 0.0)
    return np.where(inside, gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0), -np.inf)
