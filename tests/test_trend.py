"""Trends: the fit against statsmodels, edges, and few false alarms with fair power.

The larger simulations are `tests/validate/validate_trends.py`.
"""

from __future__ import annotations

import doctest
import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import expit

from sb_serving.stats import trend
from sb_serving.stats.trend import Daily, Trend, scan, share_of_day, with_fdr

Floats = NDArray[np.float64]


def table(
    *,
    completed: Floats | None = None,
    decided: Floats | None = None,
    invocations: Floats | None = None,
    durations: list[list[float]] | None = None,
) -> Daily:
    """A table from what a test is about; `durations` is one skill's list of days."""
    if durations is not None:
        days = [np.asarray(day, dtype=float) for day in durations]
        sums = [(len(d), d.sum(), np.log(d).sum(), (np.log(d) ** 2).sum()) for d in days]
        timed, seconds, logs, squares = (np.array([row]) for row in zip(*sums, strict=True))
    shape = next(a.shape for a in (decided, invocations, timed_or_none(durations)) if a is not None)
    zero = np.zeros(shape)
    return Daily(
        skills=tuple(f"skill-{s}" for s in range(shape[0])),
        first_day=0,
        invocations=zero if invocations is None else invocations,
        completed=zero if completed is None else completed,
        decided=zero if decided is None else decided,
        timed=zero if durations is None else timed,
        seconds=zero if durations is None else seconds,
        log_seconds=zero if durations is None else logs,
        log_squares=zero if durations is None else squares,
    )


def timed_or_none(durations: list[list[float]] | None) -> Floats | None:
    return None if durations is None else np.zeros((1, len(durations)))


def last(daily: Daily) -> int:
    return daily.first_day + daily.invocations.shape[1] - 1


def rates(daily: Daily, days: int, **options: float) -> list[Trend]:
    return scan(daily, end=last(daily), days=days, metric="completion_rate", **options)  # type: ignore[arg-type]


def simulate(
    rng: np.random.Generator, skills: int, days: int, *, change: float = 0.0, noise: float = 0.0
) -> Daily:
    """Twenty calls a day at .9, with a change in log-odds over the window."""
    eta = math.log(9) + change * np.linspace(-0.5, 0.5, days) + noise * rng.normal(size=(skills, 1))
    n = np.full((skills, days), 20)
    return table(completed=rng.binomial(n, expit(eta)).astype(float), decided=n.astype(float))


def slope_of(lines: trend._Lines) -> Floats:
    """The slope alone, as a combination of the coefficients."""
    asked = np.zeros((len(lines.x), lines.x.shape[2], 1))
    asked[:, 1] = 1.0
    return asked


# --- the fit


def test_firth_fit_is_statsmodels_glm_on_the_augmented_counts() -> None:
    """Firth's estimate is the plain one after adding half of each day's leverage to both sides."""
    import statsmodels.api as sm

    rng = np.random.default_rng(1)
    n = rng.integers(1, 30, size=(1, 14)).astype(float)
    k = rng.binomial(n.astype(int), 0.8).astype(float)
    cut = trend._cut(table(completed=k, decided=n), 13, 14, "completion_rate", 1.0)
    lines = trend._count_lines(cut, rate=True)
    beta = trend._fit_grid(lines, slope_of(lines)).beta[0, 0, :2]
    x = lines.x[0, cut.inside, :2]
    weight = 1 / lines.variance[0, cut.inside]
    leverage = weight * np.einsum("tp,pq,tq->t", x, np.linalg.inv(x.T @ (x * weight[:, None])), x)
    augmented = np.stack([k[0] + leverage / 2, n[0] - k[0] + leverage / 2], axis=1)
    oracle = sm.GLM(augmented, x, family=sm.families.Binomial()).fit(tol=1e-12)
    assert beta == pytest.approx(oracle.params, abs=1e-6)


@pytest.mark.parametrize("rate", [True, False])
def test_fit_without_noise_is_statsmodels_glm_where_counts_are_large(rate: bool) -> None:
    import statsmodels.api as sm

    rng = np.random.default_rng(2)
    n = np.full((1, 14), 50_000.0)
    k = rng.binomial(n.astype(int), 0.7).astype(float)
    daily = table(completed=k, decided=n, invocations=k)
    metric = "completion_rate" if rate else "invocation_count"
    lines = trend._count_lines(trend._cut(daily, 13, 14, metric, 1.0), rate=rate)  # type: ignore[arg-type]
    fits = trend._fit_grid(lines, slope_of(lines))
    x = lines.x[0, -14:, :2]
    if rate:
        oracle = sm.GLM(np.stack([k[0], n[0] - k[0]], axis=1), x, sm.families.Binomial()).fit()
    else:
        oracle = sm.GLM(k[0], x, sm.families.Poisson()).fit()
    assert fits.beta[0, 0, :2] == pytest.approx(oracle.params, abs=1e-4)
    assert math.sqrt(fits.variance[0, 0, 0]) == pytest.approx(oracle.bse[1], rel=1e-3)


def test_every_point_of_the_noise_grid_is_statsmodels_gls() -> None:
    """Coefficients, standard error, and likelihood up to one constant; with a day missing."""
    import statsmodels.api as sm

    rng = np.random.default_rng(3)
    days = 12
    x = np.stack([np.ones(days), np.linspace(-0.5, 0.5, days)], axis=1)
    y, counting = rng.normal(size=days), rng.uniform(0.1, 1.0, size=days)
    counting[4] = np.inf
    lines = trend._Lines(y[None], counting[None], x[None], np.full(2, 1e-12))
    fits = trend._fit_grid(lines, slope_of(lines))
    keep = np.isfinite(counting)
    lag = np.abs(np.arange(days)[:, None] - np.arange(days))
    offsets = []
    for g in range(len(trend._SIGMAS)):
        cov = np.diag(np.where(keep, counting, 0)) + trend._SIGMAS[g] ** 2 * trend._RHOS[g] ** lag
        cov = cov[np.ix_(keep, keep)]
        oracle = sm.GLS(y[keep], x[keep], sigma=cov).fit(cov_type="fixed scale")
        assert fits.beta[0, g] == pytest.approx(oracle.params, abs=1e-9)
        assert math.sqrt(fits.variance[0, g, 0]) == pytest.approx(oracle.bse[1], rel=1e-9)
        residual = y[keep] - x[keep] @ oracle.params
        inverse = np.linalg.inv(cov)
        restricted = np.linalg.slogdet(x[keep].T @ inverse @ x[keep])[1]
        log_lik = -0.5 * (np.linalg.slogdet(cov)[1] + restricted + residual @ inverse @ residual)
        offsets.append(fits.log_likelihood[0, g] - log_lik)
    assert offsets == pytest.approx([0.0] * len(offsets), abs=1e-8)


def test_duration_line_is_weighted_least_squares_on_daily_log_means() -> None:
    import statsmodels.api as sm

    rng = np.random.default_rng(4)
    durations = [rng.lognormal(1 + 0.02 * d, 0.5, size=5 + d).tolist() for d in range(14)]
    daily = table(durations=durations)
    lines = trend._log_lines(trend._cut(daily, 13, 14, "avg_duration_seconds", 1.0))
    fits = trend._fit_grid(lines, slope_of(lines))
    y = np.array([np.log(day).mean() for day in durations])
    n = np.array([len(day) for day in durations], dtype=float)
    oracle = sm.WLS(y, lines.x[0, -14:, :2], weights=n).fit()
    assert fits.beta[0, 0, :2] == pytest.approx(oracle.params, abs=1e-6)
    everything = np.concatenate([np.log(day) for day in durations])
    line = np.repeat(lines.x[0, -14:, :2] @ oracle.params, n.astype(int))
    spread = ((everything - line) ** 2).sum() / (n.sum() - 2)
    assert 1 / lines.variance[0, -14:] == pytest.approx(n / spread, rel=1e-6)


# --- false alarms and power, small; the bars are tested by the validation


@pytest.mark.parametrize("days", [7, 30, 90])
def test_few_false_alarms_and_fair_power(days: int) -> None:
    rng = np.random.default_rng(days)
    flat = [t.p_value or 1.0 for t in rates(simulate(rng, 200, days), days)]
    assert np.mean(np.array(flat) < 0.05) <= 0.08
    if days >= 30:
        falling = rates(simulate(rng, 100, days, change=-1.2), days)
        assert np.mean([t.trend == "declining" for t in falling]) >= 0.6


@pytest.mark.parametrize("metric", ["completion_rate", "invocation_count"])
def test_without_noise_the_ends_have_statsmodels_interval_of_the_mean(
    metric: trend.Metric,
) -> None:
    """Two hundred skills of pure counting noise leave the mixture at (almost) no noise."""
    import statsmodels.api as sm

    rng = np.random.default_rng(12)
    n = np.full((200, 14), 4000.0)
    k = rng.binomial(n.astype(int), 0.7).astype(float)
    daily = table(completed=k, decided=n, invocations=k)
    found = scan(daily, end=13, days=14, metric=metric)[3]
    x = sm.add_constant(np.arange(14.0))
    if metric == "completion_rate":
        fit = sm.GLM(np.stack([k[3], n[3] - k[3]], axis=1), x, sm.families.Binomial()).fit()
    else:
        fit = sm.GLM(k[3], x, sm.families.Poisson()).fit()
    oracle = fit.get_prediction(x[[0, -1]]).summary_frame()
    for name, (_, row) in zip(("start", "end"), oracle.iterrows(), strict=True):
        low, value, high = (getattr(found, f"{name}_{part}") for part in ("low", "value", "high"))
        assert value == pytest.approx(row["mean"], rel=1e-3)
        assert high - low == pytest.approx(row["mean_ci_upper"] - row["mean_ci_lower"], rel=0.2)
        assert low < value < high


def test_change_comes_from_the_line_and_not_from_the_end_points() -> None:
    """Two days of twenty calls differ by ten points by chance; the line does not."""
    daily = simulate(np.random.default_rng(5), 200, 30)
    changes = [t.change_percent or 0.0 for t in rates(daily, 30)]
    ends = 100 * (daily.completed[:, -1] / daily.completed[:, 0] - 1)
    assert np.std(changes) < 6 < 9 < np.std(ends)


def test_weekly_dip_is_no_fall_once_earlier_weeks_are_known() -> None:
    """Seven days that end on a bad weekend look like a fall; five weeks of them do not."""
    rng = np.random.default_rng(6)
    weekend = np.arange(35) % 7 >= 5
    n = np.full((100, 35), 60)
    k = rng.binomial(n, np.where(weekend, 0.6, 0.9)).astype(float)
    trends = rates(table(completed=k, decided=n.astype(float)), 7)
    assert np.mean([(t.p_value or 0) < 0.05 for t in trends]) <= 0.12
    assert not [t for t in trends if t.trend != "stable"]


# --- stories


def test_one_failing_call_today_is_not_a_collapse() -> None:
    """The predecessor gave five days of 200 calls and one call today equal weight: -100 %."""
    n = np.array([[200.0, 200, 200, 200, 200, 1]])
    k = np.array([[180.0, 180, 180, 180, 180, 0]])
    (found,) = rates(table(completed=k, decided=n), 7)
    assert found.trend == "stable"
    assert abs(found.change_percent or 0) < 3


def test_half_a_day_is_not_a_fall_in_volume() -> None:
    calls = np.full((1, 14), 100.0)
    calls[0, -1] = 50
    daily = table(invocations=calls)
    as_half = scan(daily, end=13, days=14, metric="invocation_count", end_share=0.5)[0]
    as_whole = scan(daily, end=13, days=14, metric="invocation_count")[0]
    assert as_half.end_value == pytest.approx(100, rel=0.02)
    assert as_half.p_value is not None
    assert as_whole.p_value is not None
    assert as_half.p_value > 0.5 > as_whole.p_value


def test_silence_after_the_last_call_is_a_fall_in_volume() -> None:
    calls = np.array([[30.0] * 20])
    (found,) = scan(table(invocations=calls), end=29, days=30, metric="invocation_count")
    assert (found.trend, found.n) == ("declining", 600)


def test_days_before_the_record_are_not_days_without_calls() -> None:
    """Ten days of logs are not a rise from nothing in a window of fourteen."""
    daily = table(invocations=np.full((1, 10), 30.0))
    (found,) = scan(daily, end=9, days=14, metric="invocation_count")
    assert found.trend == "stable"
    assert found.start_value == pytest.approx(30, rel=0.01)


def test_longer_is_worse_and_values_are_mean_seconds() -> None:
    rng = np.random.default_rng(7)
    durations = [rng.lognormal(0.05 * d, 0.5, size=40).tolist() for d in range(30)]
    (found,) = scan(table(durations=durations), end=29, days=30, metric="avg_duration_seconds")
    assert found.trend == "declining"
    assert found.start_value == pytest.approx(math.exp(0.125), rel=0.15)
    assert found.end_value == pytest.approx(math.exp(29 * 0.05 + 0.125), rel=0.15)


def test_all_completed_is_stable_at_one_and_none_at_zero() -> None:
    n = np.array([[3.0, 20, 5, 40, 7, 1, 9], [3.0, 20, 5, 40, 7, 1, 9]])
    k = n * np.array([[1.0], [0.0]])
    whole, none = rates(table(completed=k, decided=n), 7)
    for found, value in ((whole, 1.0), (none, 0.0)):
        assert (found.trend, found.p_value, found.slope_per_day) == ("stable", 1.0, 0.0)
        assert (found.start_value, found.end_value, found.change_percent) == (value, value, 0.0)
        assert found.slope_low is not None
        assert found.slope_high is not None
        assert found.slope_low <= 0 <= found.slope_high


def test_complete_separation_has_a_finite_slope() -> None:
    """Five days without a success, then only successes: the plain estimate is infinite."""
    n = np.full((1, 14), 10.0)
    k = np.where(np.arange(14) < 5, 0.0, 10.0)[None]
    (found,) = rates(table(completed=k, decided=n), 14)
    assert found.trend == "improving"
    assert 0 < (found.start_value or 0) < 0.2 < 0.8 < (found.end_value or 0) < 1


@pytest.mark.parametrize(
    ("n", "words"),
    [
        ([50, 50, 50], "3 of 30 days"),
        ([1, 1, 1, 1, 1], "n = 5"),
        ([20] * 9, "spans 9 of 30 days"),
    ],
)
def test_too_little_data_says_so(n: list[float], words: str) -> None:
    (found,) = rates(table(completed=np.array([n], float), decided=np.array([n], float)), 30)
    assert found.trend == "insufficient_data"
    assert words in (found.reason or "")
    assert found.p_value is None
    assert found.q_value is None


def test_verdicts_are_adjusted_over_the_scan() -> None:
    trends = [
        Trend(f"s{i}", "completion_rate", 30, "stable", 100, slope_per_day=0.01, p_value=p)
        for i, p in enumerate([0.004, 0.03, 0.5, 0.9])
    ]
    found = with_fdr([*trends, Trend("few", "completion_rate", 30, "insufficient_data", 2)])
    assert [t.q_value for t in found[:4]] == pytest.approx([0.016, 0.06, 2 / 3, 0.9])
    assert [t.trend for t in found[:4]] == ["improving", "stable", "stable", "stable"]
    assert found[4].trend == "insufficient_data"


def test_share_of_day_follows_earlier_days() -> None:
    assert share_of_day(0, 8000, 8 / 24) < 0.01
    assert share_of_day(4000, 8000, 0.5) == pytest.approx(0.5, abs=0.01)
    assert share_of_day(8000, 8000, 1.0) == 1.0
    assert share_of_day(0, 0, 0.25) == 0.25
    assert share_of_day(0, 0, 0.0) > 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"metric": "rating"}, "metric = 'rating'"),
        ({"days": 3}, "days = 3"),
        ({"end_share": 0.0}, "end_share = 0.0"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, object], words: str) -> None:
    daily = simulate(np.random.default_rng(8), 1, 7)
    with pytest.raises(ValueError, match=words):
        scan(daily, **({"end": 6, "days": 7} | options))  # type: ignore[arg-type]


# --- properties

ROWS = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 34), st.integers(0, 40), st.integers(0, 40)),
    unique_by=lambda row: row[:2],
    max_size=60,
)


def from_rows(rows: list[tuple[str, int, int, int]]) -> Daily:
    done = np.array([min(k, n) for _, _, k, n in rows], dtype=float)
    n = np.array([n for *_, n in rows], dtype=float)
    return Daily.from_rows(
        [name for name, *_ in rows],
        [day for _, day, *_ in rows],
        invocations=n,
        completed=done,
        decided=n,
        timed=n,
        seconds=n * (1 + done),
        log_seconds=n * np.log1p(done),
        log_squares=n * np.log1p(done) ** 2,
    )


@settings(max_examples=25, deadline=None)
@given(ROWS, st.randoms(use_true_random=False), st.sampled_from(trend.METRICS))
def test_any_table_gives_finite_json_whatever_the_order_of_rows(
    rows: list[tuple[str, int, int, int]], random: object, metric: trend.Metric
) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for days in (7, 30):
        found = scan(from_rows(rows), end=34, days=days, metric=metric)
        assert found == scan(from_rows(shuffled), end=34, days=days, metric=metric)
        json.dumps([asdict(t) for t in found], allow_nan=False)
        for t in found:
            if t.p_value is None:
                continue
            assert t.q_value is not None
            assert 0 <= t.p_value <= t.q_value <= 1
            assert t.slope_low is not None
            assert t.slope_high is not None
            assert t.slope_low <= (t.slope_per_day or 0) <= t.slope_high
            for ends in (("start_low", "start_value", "start_high"),
                         ("end_low", "end_value", "end_high")):  # fmt: skip
                low, value, high = (getattr(t, name) for name in ends)
                assert 0 <= low <= value <= high
            if metric == "completion_rate":
                assert 0 <= (t.start_value or 0) <= 1
                assert 0 <= (t.end_value or 0) <= 1


def test_a_skill_and_day_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="more than one row"):
        from_rows([("a", 1, 1, 1), ("a", 1, 2, 2)])


def test_missing_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="seconds holds"):
        Daily.from_rows(
            ["a"], [1], invocations=[1], completed=[1], decided=[1], timed=[1],
            seconds=[float("nan")], log_seconds=[0], log_squares=[0],
        )  # fmt: skip


def test_the_worked_example_of_the_page() -> None:
    page = Path(__file__).parents[1] / "docs" / "statistics" / "trends.md"
    result = doctest.testfile(str(page), module_relative=False)
    assert result.attempted >= 3
    assert result.failed == 0
