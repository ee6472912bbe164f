"""Since when: a planted rise is found, no rise is rarely claimed, the sums are right by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hypergeom

from sb_serving.stats.changepoint import find_rise


def test_with_one_boundary_p_is_fishers() -> None:
    """Two steps: the permutations are Fisher's exact test, at most 1 of 9 failures in the first."""
    rise = find_rise(np.array([1, 8]), np.array([10, 10]), permutations=9_999)
    assert rise is not None
    assert (rise.index, rise.low, rise.high) == (1, 1, 1)
    assert (rise.rate_before, rise.rate_after) == (0.1, 0.8)
    assert rise.p_value == pytest.approx(hypergeom(20, 9, 10).cdf(1), abs=0.002)


def test_a_planted_rise_is_found_on_its_day() -> None:
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(40):
        decided = rng.integers(5, 15, 60)
        rate = np.where(np.arange(60) < 45, 0.08, 0.6)
        rise = find_rise(rng.binomial(decided, rate), decided, permutations=199)
        assert rise is not None
        assert rise.p_value <= 0.01
        hits += abs(rise.index - 45) <= 1
    assert hits >= 38


def test_without_a_rise_small_p_values_are_rare() -> None:
    """300 series without change: p <= .05 in about 5 % of them (at most 9 %, five sigma away)."""
    rng = np.random.default_rng(6)
    small = 0
    for number in range(300):
        decided = rng.integers(1, 12, 30)
        rise = find_rise(rng.binomial(decided, 0.2), decided, permutations=199, seed=number)
        small += rise is not None and rise.p_value <= 0.05
    assert small <= 27


@pytest.mark.parametrize(
    ("failed", "decided"),
    [([], []), ([0, 0], [5, 5]), ([5, 5], [5, 5]), ([3], [5]), ([2, 0], [2, 4]), ([4, 0], [5, 0])],
)
def test_too_little_to_say(failed: list[int], decided: list[int]) -> None:
    assert find_rise(np.array(failed, dtype=np.int64), np.array(decided, dtype=np.int64)) is None


def test_more_failures_than_runs_are_refused() -> None:
    with pytest.raises(ValueError, match="more failed"):
        find_rise(np.array([3, 1]), np.array([2, 5]))


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=20))
def test_empty_steps_change_nothing(steps: list[tuple[int, int]]) -> None:
    failed = np.array([k for k, _ in steps], dtype=np.int64)
    decided = failed + np.array([c for _, c in steps], dtype=np.int64)
    spread = np.zeros(2 * len(steps), dtype=np.int64)
    wide = spread.copy()
    spread[::2], wide[::2] = failed, decided
    plain = find_rise(failed, decided, permutations=49)
    padded = find_rise(spread, wide, permutations=49)
    assert (plain is None) == (padded is None)
    if plain is not None and padded is not None:
        assert padded.index == 2 * plain.index
        assert padded.p_value == plain.p_value
        assert plain.low <= plain.index <= plain.high
        assert plain.rate_before < plain.rate_after
