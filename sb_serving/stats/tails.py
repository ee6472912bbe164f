"""Tail probabilities of overdispersed counts, exact and fast over many cells at once.

Belongs here: two-sided p-values of the beta-binomial and the negative binomial, and how much of a
nominal level such lattice tests can really reach. Does not: where means and dispersions come from
(`seasonal`, `anomaly`) and what counts as significant (`fdr`).

scipy.stats has both distributions, but takes 2 s to import and sums one cell at a time.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, betaln, gammaln

__all__ = ["attained_levels", "beta_binomial_p", "negative_binomial_p"]

Floats: TypeAlias = NDArray[np.float64]

MIN_DISPERSION = 1e-7
"""Below this the log-gamma differences lose digits and the distribution is binomial anyway."""

MAX_EXACT_SD = 300.0
"""From this sd (in counts) on the lattice is so fine that a beta of equal variance stands in."""

TABLE_COUNTS = 400
"""Tests whose count stays below this are lattices worth tabulating in `attained_levels`."""

TABLE_TESTS = 300
"""Tests tabulated by `attained_levels`; the mean over them has a relative error of about 3 %."""


def beta_binomial_p(
    successes: Floats, n: Floats, mean: Floats, dispersion: Floats
) -> tuple[Floats, NDArray[np.bool_]]:
    """Two-sided p-values of counts under beta-binomials.

    The tail on the observed side is exact. The other side adds the same again, but only where it
    can be as rare: at a rate of 0.92 even 20 of 20 is ordinary, so a drop is tested one-sided.

    Args:
        successes: Observed counts, 0 to n, shape (t,).
        n: Trials, at least 1, shape (t,).
        mean: Success probability, in (0, 1), shape (t,).
        dispersion: Correlation rho of two trials of one cell, in [0, 1): the variance is
            n mean (1 - mean) (1 + (n - 1) rho). Shape (t,).

    Returns:
        P-values in [0, 1], and whether the count is below its mean, both of shape (t,).
    """
    a, b = _beta_parameters(mean, dispersion)
    below = successes < n * mean
    low = np.where(below, successes, n - successes)
    a, b = np.where(below, a, b), np.where(below, b, a)
    tail = _lower_tail(low, n, a, b)
    with np.errstate(under="ignore"):
        other_extreme = np.exp(betaln(a + n, b) - betaln(a, b))
    return np.minimum(np.where(other_extreme <= tail, 2.0 * tail, tail), 1.0), below


def negative_binomial_p(
    count: Floats, mean: Floats, dispersion: Floats
) -> tuple[Floats, NDArray[np.bool_]]:
    """Two-sided p-values of counts under negative binomials.

    Args:
        count: Observed counts, at least 0, shape (t,).
        mean: Expected counts, above 0, shape (t,).
        dispersion: alpha of the variance mean + alpha mean^2, shape (t,).

    Returns:
        P-values in [0, 1] (the lower tail counts for a spike only where zero is as rare), and
        whether the count is below its mean, both of shape (t,).
    """
    size = 1.0 / np.maximum(dispersion, MIN_DISPERSION)
    p = size / (size + mean)
    below = count < mean
    tail = np.empty(count.shape)
    with np.errstate(under="ignore"):
        tail[below] = betainc(size[below], count[below] + 1.0, p[below])
        above = ~below
        tail[above] = betainc(np.maximum(count[above], 0.5), size[above], 1.0 - p[above])
        zero = np.exp(size * np.log(p))
    doubled = below | (zero <= tail)
    return np.minimum(np.where(doubled, 2.0 * tail, tail), 1.0), below


def attained_levels(
    levels: Floats, n: Floats, mean: Floats, dispersion: Floats, *, bounded: bool
) -> Floats:
    """How often null tests really reach nominal levels: the mean of P(p <= level) over tests.

    A count takes few values, so P(p <= t) of one test is the largest value it can take below t,
    often far less than t and 0 for three trials. Summing these instead of t is what makes a false
    discovery rate of small counts honest without being wasteful.

    Args:
        levels: Nominal levels, increasing, shape (g,).
        n: Trials (bounded) or expected counts (unbounded) of each test, shape (t,).
        mean: Success probabilities (bounded) or expected counts (unbounded), shape (t,).
        dispersion: rho or alpha, shape (t,).
        bounded: True for beta-binomials, False for negative binomials.

    Returns:
        Attained probabilities, shape (g,), each at most its level. Tests with large counts are
        taken to reach every level; of the others an even sample of `TABLE_TESTS` is tabulated.

    Source: the idea of a discrete false discovery rate, Heyse (2011), "A false discovery rate
    procedure for categorical data"; here with the average over tests.
    """
    spread = 0.0 if bounded else 8.0 * np.sqrt(mean * (1.0 + mean * dispersion))
    small = np.flatnonzero(n + spread <= TABLE_COUNTS)
    if len(small) == 0:
        return levels.copy()
    picked = small[np.linspace(0, len(small) - 1, min(TABLE_TESTS, len(small))).astype(np.int64)]
    share = len(small) / len(n)
    counts = np.arange(TABLE_COUNTS + 1 if not bounded else int(n[picked].max()) + 1)[None, :]
    columns = [x[picked, None] for x in (n, mean, dispersion)]
    mass, p = (_beta_binomial_table if bounded else _negative_binomial_table)(counts, *columns)
    order = np.argsort(p, axis=None, kind="stable")
    reached = np.concatenate([[0.0], np.cumsum(mass.ravel()[order])]) / len(picked)
    # The factor keeps a level that equals an attainable p on the attained side of rounding.
    at = np.searchsorted(p.ravel()[order], levels * (1.0 + 1e-9), side="right")
    return np.minimum(share * reached[at] + (1.0 - share) * levels, levels)


def _beta_parameters(mean: Floats, dispersion: Floats) -> tuple[Floats, Floats]:
    total = 1.0 / np.maximum(dispersion, MIN_DISPERSION) - 1.0
    return mean * total, (1.0 - mean) * total


def _log_mass(k: Floats, n: Floats, a: Floats, b: Floats) -> Floats:
    """Log probability of k successes in n under the beta-binomial with parameters a and b."""
    combinations = -betaln(k + 1.0, n - k + 1.0) - np.log(n + 1.0)
    return np.asarray(betaln(a + k, b + n - k) - betaln(a, b) + combinations)


def _lower_tail(k: Floats, n: Floats, a: Floats, b: Floats) -> Floats:
    """P(K <= k) for each cell: by recurrence downwards from k, or by a beta where sd is large."""
    total = a + b
    variance = n * a * b * (total + n) / (total * total * (total + 1.0))
    smooth = np.sqrt(variance) > MAX_EXACT_SD
    out = np.empty(len(k))
    exact = np.flatnonzero(~smooth)
    out[exact] = _summed_tail(k[exact], n[exact], a[exact], b[exact])
    if smooth.any():
        mean = a[smooth] / total[smooth]
        strength = mean * (1.0 - mean) * n[smooth] ** 2 / variance[smooth] - 1.0
        edge = np.minimum((k[smooth] + 0.5) / n[smooth], 1.0)
        out[smooth] = betainc(mean * strength, (1.0 - mean) * strength, edge)
    return np.minimum(out, 1.0)


def _summed_tail(k: Floats, n: Floats, a: Floats, b: Floats) -> Floats:
    """P(K <= k) by adding mass(k), mass(k - 1), ...; each term is the last times a simple ratio.

    A cell is done at zero or when what is left cannot change nine digits. With a < 1 the mass
    rises again towards zero, so such cells are added to the end.
    """
    with np.errstate(under="ignore"):
        term = np.exp(_log_mass(k, n, a, b))
        out = term.copy()
        cell = np.arange(len(k))
        at = k.copy()
        while len(cell):
            going = (at > 0.0) & ((term > 1e-9 * out[cell]) | (a[cell] < 1.0))
            cell, at, term = cell[going], at[going], term[going]
            left = n[cell] - at
            ratio = at / (left + 1.0) * (b[cell] + left) / (a[cell] + at - 1.0)
            term = term * ratio
            at = at - 1.0
            out[cell] += term
    return out


def _beta_binomial_table(
    counts: NDArray[np.int64], n: Floats, mean: Floats, dispersion: Floats
) -> tuple[Floats, Floats]:
    """Mass and two-sided p of every count (columns) of every test (rows); no mass beyond n."""
    a, b = _beta_parameters(mean, dispersion)
    inside = counts <= n
    with np.errstate(under="ignore"):
        mass = np.where(inside, np.exp(_log_mass(np.minimum(counts, n), n, a, b)), 0.0)
    lower = np.cumsum(mass, axis=1)
    upper = np.cumsum(mass[:, ::-1], axis=1)[:, ::-1]
    below = counts < n * mean
    all_succeed = np.take_along_axis(mass, n.astype(np.int64), axis=1)
    return mass, _two_sided(below, lower, upper, mass[:, :1], all_succeed)


def _negative_binomial_table(
    counts: NDArray[np.int64], n: Floats, mean: Floats, dispersion: Floats
) -> tuple[Floats, Floats]:
    """Mass and two-sided p of every count (columns) of every test (rows)."""
    del n  # the expected count is the mean
    size = 1.0 / np.maximum(dispersion, MIN_DISPERSION)
    log_p, log_miss = -np.log1p(mean / size), -np.log1p(size / mean)
    ways = gammaln(counts + size) - gammaln(size) - gammaln(counts + 1.0)
    with np.errstate(under="ignore"):
        mass = np.exp(ways + size * log_p + counts * log_miss)
    lower = np.cumsum(mass, axis=1)
    upper = 1.0 - lower + mass
    # No count is the largest, so the far side of a drop can always be as rare.
    return mass, _two_sided(counts < mean, lower, upper, lower[:, :1], np.zeros_like(mean))


def _two_sided(
    below: NDArray[np.bool_], lower: Floats, upper: Floats, lowest: Floats, highest: Floats
) -> Floats:
    tail = np.where(below, lower, upper)
    reachable = np.where(below, highest, lowest) <= tail
    return np.minimum(np.where(reachable, 2.0 * tail, tail), 1.0)
