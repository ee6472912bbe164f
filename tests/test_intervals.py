"""Wilson's interval against statsmodels and at its edges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sb_serving.stats.intervals import wilson


@pytest.mark.parametrize(("k", "n"), [(0, 5), (3, 3), (7, 9), (190, 200), (1, 100_000)])
@pytest.mark.parametrize("level", [0.8, 0.9, 0.95])
def test_equals_statsmodels(k: int, n: int, level: float) -> None:
    from statsmodels.stats.proportion import proportion_confint

    expected = proportion_confint(k, n, alpha=1 - level, method="wilson")
    assert wilson(k, n, level) == pytest.approx(expected, abs=1e-12)


@given(st.integers(0, 10**7).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_holds_the_rate_and_stays_inside_zero_and_one(counts: tuple[int, int]) -> None:
    k, n = counts
    low, high = wilson(k, n)
    assert 0 <= low <= high <= 1
    if n:
        assert low <= k / n <= high
        assert low < high


def test_knows_nothing_without_trials() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("k", "n", "level"), [(-1, 3, 0.9), (4, 3, 0.9), (float("nan"), 3, 0.9), (1, 3, 1.0)]
)
def test_refuses_what_is_no_rate(k: float, n: float, level: float) -> None:
    with pytest.raises(ValueError, match="is not between"):
        wilson(k, n, level)
