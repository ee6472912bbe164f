"""Baselines: the fit against scipy's beta-binomial, edges, privacy, coverage.

The larger comparisons are `tests/validate/validate_baselines.py`.
"""

from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sb_serving.stats.baseline import Baseline, baselines, fit


def named(completed: list[int], n: list[int], **options: int) -> list[Baseline]:
    names = [f"s{i:02d}" for i in range(len(n))]
    return baselines(names, completed, n, [1] * len(n), **options)


def test_with_many_skills_the_fit_is_the_likeliest_beta_binomial() -> None:
    """Four hundred skills leave one pair of mean and strength; scipy finds the same one."""
    from scipy.optimize import minimize
    from scipy.stats import betabinom

    rng = np.random.default_rng(1)
    n = rng.integers(1, 200, size=400)
    k = rng.binomial(n, rng.beta(12, 4, size=400))

    def loss(x: np.ndarray) -> float:
        return -float(betabinom.logpmf(k, n, *np.exp(x)).sum())

    alpha, beta = np.exp(minimize(loss, [0.0, 0.0], method="Nelder-Mead").x)
    community = fit(k, n)
    assert community.mean @ community.weight == pytest.approx(alpha / (alpha + beta), abs=0.002)
    strength = np.exp(np.log(community.strength) @ community.weight)
    assert strength == pytest.approx(alpha + beta, rel=0.05)
    likeliest = (k + alpha) / (n + alpha + beta)
    assert community.rate(k, n) == pytest.approx(likeliest, abs=0.005)


def test_three_of_three_does_not_top_the_ranking() -> None:
    """The predecessor ranks by the raw rate, where one lucky afternoon comes first."""
    rng = np.random.default_rng(2)
    n = rng.integers(50, 500, size=40).tolist()
    k = rng.binomial(n, rng.beta(27, 3, size=40)).tolist()
    found = named([*k, 3, 990], [*n, 3, 1000])
    lucky, proven = found[-2:]
    assert lucky.raw_rate == 1.0
    assert lucky.shrunk_rate < 0.95
    assert lucky.percentile < 80 < 97 < proven.percentile
    assert proven.shrunk_rate == pytest.approx(0.99, abs=0.005)


def test_skills_that_are_all_alike_are_brought_to_the_global_mean() -> None:
    rng = np.random.default_rng(3)
    n = rng.integers(1, 60, size=25)
    k = rng.binomial(n, 0.9)
    rates = fit(k, n).rate(k, n)
    assert np.ptp(rates) < 0.06
    assert rates == pytest.approx(k.sum() / n.sum(), abs=0.05)


@pytest.mark.parametrize("share", [0, 1])
def test_all_or_none_completed_stays_inside_zero_and_one(share: int) -> None:
    found = named([0, 3 * share, 50 * share], [0, 3, 50])
    assert [b.n for b in found] == [3, 50]
    for b in found:
        assert b.raw_rate == share
        assert 0 <= b.low < b.shrunk_rate < b.high <= 1 or b.shrunk_rate in (b.low, b.high)
        assert (b.high if share else b.low) == share
        assert abs(b.shrunk_rate - share) < 0.2


def test_nothing_shown_depends_on_a_hidden_skill() -> None:
    """With k users required, a skill of k - 1 users must not be guessed from its neighbours."""
    names, n, users = ["a", "b", "c", "d"], [90, 80, 70, 500], [5, 6, 7, 4]
    with_it = baselines(names, [80, 60, 65, 10], n, users, min_users=5)
    without = baselines(names[:3], [80, 60, 65], n[:3], users[:3], min_users=5)
    assert with_it == without
    assert [b.skill_name for b in with_it] == ["a", "b", "c"]


def test_ties_share_their_percentile() -> None:
    found = named([9, 9, 1, 99], [10, 10, 10, 100])
    assert [b.percentile for b in found] == [50.0, 50.0, 12.5, 87.5]


def test_nine_of_ten_intervals_hold_the_true_rate() -> None:
    rng = np.random.default_rng(4)
    held = []
    for _ in range(40):
        n = 1 + rng.poisson(20, size=30)
        true = rng.beta(18, 2, size=30)
        k = rng.binomial(n, true)
        low, high = fit(k, n).interval(k, n)
        held.append(np.mean((low <= true) & (true <= high)))
    assert 0.90 <= np.mean(held) <= 0.98


def test_error_on_unseen_calls_is_below_raw_and_global() -> None:
    rng = np.random.default_rng(5)
    errors = []
    for _ in range(30):
        n = 1 + rng.poisson(15, size=80)
        true = rng.beta(8, 2, size=80)
        k = rng.binomial(n, true)
        estimates = (fit(k, n).rate(k, n), k / n, np.full(80, k.sum() / n.sum()))
        errors.append([((estimate - true) ** 2).mean() for estimate in estimates])
    ours, raw, pooled = np.mean(errors, axis=0)
    assert ours < 0.8 * raw
    assert ours < 0.8 * pooled


def test_no_skill_at_all_is_an_empty_list() -> None:
    assert baselines([], [], [], []) == []


@pytest.mark.parametrize(
    ("completed", "n", "options", "words"),
    [
        ([4], [3], {}, "completed = 4 of n = 3"),
        ([-1], [3], {}, "completed = -1"),
        ([float("nan")], [3], {}, "completed = nan"),
        ([1, 2], [3], {}, "one length"),
        ([1], [3], {"min_users": 0}, "min_users = 0"),
    ],
)
def test_what_is_no_count_is_refused(
    completed: list[float], n: list[float], options: dict[str, int], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        baselines(["s"] * len(n), completed, n, [1] * len(n), **options)


COUNTS = st.lists(
    st.integers(0, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), max_size=25
)


@settings(max_examples=30, deadline=None)
@given(COUNTS, st.randoms(use_true_random=False))
def test_any_counts_in_any_order(counts: list[tuple[int, int]], random: object) -> None:
    """Shrunk rates lie inside their interval, and the order of skills changes no digit."""
    order = list(range(len(counts)))
    random.shuffle(order)  # type: ignore[attr-defined]
    first = named([k for k, _ in counts], [n for _, n in counts])
    again = baselines(
        [f"s{i:02d}" for i in order],
        [counts[i][0] for i in order],
        [counts[i][1] for i in order],
        [1] * len(order),
    )
    assert sorted(first, key=lambda b: b.skill_name) == sorted(again, key=lambda b: b.skill_name)
    assert len(first) == sum(n > 0 for _, n in counts)
    for b in first:
        assert 0 <= b.low <= b.shrunk_rate <= b.high <= 1
        assert 0 <= b.percentile <= 100


def test_the_worked_example_of_the_page() -> None:
    page = Path(__file__).parents[1] / "docs" / "statistics" / "baselines.md"
    result = doctest.testfile(str(page), module_relative=False)
    assert result.attempted >= 3
    assert result.failed == 0
