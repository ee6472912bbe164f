"""Anomalies: tails and scans against independent oracles, properties, and what must be found."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sb_serving.stats import scan
from sb_serving.stats.anomaly import (
    Anomaly,
    AnomalyReport,
    HourlyCounts,
    Metric,
    find_anomalies,
)
from sb_serving.stats.anomaly_lifecycle import Known, reconcile
from sb_serving.stats.changepoint import find_shift
from sb_serving.stats.coincidence import ValueCounts, coincident_changes, moved_shares
from sb_serving.stats.conformal import pool_tails, square_of_normal, tail_of, tail_p
from sb_serving.stats.lasting import lasting_falls
from sb_serving.stats.pooling import pooled
from sb_serving.stats.tails import attained_levels, beta_binomial_p, negative_binomial_p

Array = NDArray[Any]
ORIGIN = 24 * 19_005  # a Monday's midnight
DAY = 24


def counts_of(volume: Array, completed: Array, seconds: Array | None = None) -> HourlyCounts:
    """Dense (skills, hours) arrays as entries."""
    skill, hour = np.nonzero(volume)
    n = volume[skill, hour]
    total = 2.0 * n if seconds is None else seconds[skill, hour]
    return HourlyCounts(skill, hour + ORIGIN, n, completed[skill, hour], n, n, total)


def steady(
    seed: int, skills: int = 5, days: int = 29, per_hour: float = 12.0, rate: float = 0.9
) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    volume = rng.poisson(per_hour, (skills, DAY * days))
    return volume, rng.binomial(volume, rate)


def found(counts: HourlyCounts, skills: int, days: int = 29, **how: Any) -> AnomalyReport:
    how = {"score_from": ORIGIN + DAY * (days - 1), "end": ORIGIN + DAY * days} | how
    return find_anomalies([f"s{i}" for i in range(skills)], counts, **how)


# --- tails against scipy --------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 300),
    share=st.floats(0, 1),
    mean=st.floats(0.01, 0.99),
    rho=st.floats(1e-4, 0.5),
)
def test_the_beta_binomial_tail_is_scipys(n: int, share: float, mean: float, rho: float) -> None:
    from scipy.stats import betabinom

    k = round(n * share)
    total = 1 / rho - 1
    oracle = betabinom(n, mean * total, (1 - mean) * total)
    p, below = beta_binomial_p(*(np.array([float(x)]) for x in (k, n, mean, rho)))
    # Summed masses: scipy's sf is 1 - cdf and loses rare tails.
    tail = oracle.pmf(np.arange(k + 1) if k < n * mean else np.arange(k, n + 1)).sum()
    other = oracle.pmf(n) if k < n * mean else oracle.pmf(0)
    # Where both ends are as rare, rounding decides whether the tail counts once or twice.
    allowed = [tail] * bool(other >= tail * (1 - 1e-6))
    allowed += [2 * tail] * bool(other <= tail * (1 + 1e-6))
    assert bool(below[0]) == (k < n * mean)
    assert any(p[0] == pytest.approx(min(x, 1.0), rel=1e-6, abs=1e-300) for x in allowed)


@settings(max_examples=60, deadline=None)
@given(k=st.integers(0, 400), mean=st.floats(0.1, 200), alpha=st.floats(1e-3, 2))
def test_the_negative_binomial_tail_is_scipys(k: int, mean: float, alpha: float) -> None:
    from scipy.stats import nbinom

    oracle = nbinom(1 / alpha, 1 / (1 + alpha * mean))
    p, below = negative_binomial_p(*(np.array([float(x)]) for x in (k, mean, alpha)))
    tail = oracle.cdf(k) if k < mean else oracle.sf(k - 1)
    doubled = k < mean or oracle.pmf(0) <= tail
    assert bool(below[0]) == (k < mean)
    assert p[0] == pytest.approx(min(2 * tail if doubled else tail, 1.0), rel=1e-6, abs=1e-12)


def test_three_trials_reach_no_small_level() -> None:
    """At a rate of .9 the rarest of three trials is 0 of 3: P = .001 without dispersion."""
    levels = np.array([1e-4, 1.1e-3, 0.05])
    reached = attained_levels(
        levels, np.array([3.0]), np.array([0.9]), np.array([1e-9]), bounded=True
    )
    assert reached == pytest.approx([0.0, 0.001, 0.028], abs=1e-5)


# --- ranks with a tail ----------------------------------------------------------------------------


def test_squares_of_normal_values_get_uniform_p_values() -> None:
    """Of 40,000 fresh scores about 5, .5 and .05 in a thousand are so rare, never many more."""
    rng = np.random.default_rng(3)
    for size in (30, 300, 1_000):
        tails = pool_tails(
            [tail_of(rng.normal(size=size) ** 2, square_of_normal) for _ in range(90)]
        )
        p = np.concatenate([tail_p(tail, rng.normal(size=450) ** 2) for tail in tails])
        for level in (0.005, 0.0005):
            assert (p <= level).mean() <= 2 * level, (size, level)


def test_pooling_never_makes_a_short_past_sure() -> None:
    """Thirty scores of a skill among many: its threshold is its own and still an estimate.

    One call eight times as long as usual, alone in its half day, once got p = 1e-9 this way.
    """
    rng = np.random.default_rng(4)
    tails = pool_tails(
        [tail_of(rng.normal(size=30) ** 2, square_of_normal, together=3) for _ in range(90)]
    )
    p = np.array([tail_p(tail, np.array([20.0]))[0] for tail in tails])
    assert np.median(p) > 8e-6  # the normal's own p, were the spread known
    assert p.min() > 1e-7


def test_a_past_without_spread_has_ranks_only() -> None:
    tail = tail_of(np.zeros(99), square_of_normal)
    assert tail_p(tail, np.array([0.0, 5.0])) == pytest.approx([1.0, 0.01])


def test_pooled_estimates_lie_between_their_own_and_the_common_mean() -> None:
    """Equal precisions, no prior to speak of: DerSimonian and Laird by hand."""
    values = np.array([0.0, 10.0])
    estimate, variance = pooled(values, np.array([1.0, 1.0]), 5.0, 1e-9)
    between = 50.0 - 1.0  # the variance of the two less their noise
    assert estimate == pytest.approx([5 - 5 * between / (between + 1), 5 + 5 * 49 / 50], rel=0.05)
    assert np.all(variance > 0)


# --- windows --------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 10), min_size=1, max_size=60), st.sampled_from(scan.WINDOWS))
def test_sliding_sums_are_sums(values: list[float], length: int) -> None:
    row = np.array([values])
    brute = [sum(values[max(i - length + 1, 0) : i + 1]) for i in range(len(values))]
    assert scan.sliding_sum(row, length)[0] == pytest.approx(brute, abs=1e-9)


def test_overlapping_windows_are_one_event() -> None:
    """Three windows of one bad day and one of a day later: two events, the strongest of each."""
    windows = scan.Candidates(
        skill=np.zeros(4, dtype=np.int64),
        last=np.array([12, 13, 14, 80]),
        length=np.array([6, 6, 1, 3]),
        p=np.array([1e-5, 1e-8, 1e-3, 1e-4]),
        window_p=np.array([1e-6, 1e-9, 1e-4, 1e-5]),
        below=np.ones(4, dtype=bool),
        shift=np.zeros(4),
    )
    picked, spans = scan.events(windows)
    assert picked.tolist() == [1, 3]
    assert spans.tolist() == [[7, 14], [78, 80]]


# --- the whole ------------------------------------------------------------------------------------


def test_a_drop_is_found_where_it_was_put() -> None:
    volume, completed = steady(1)
    bad = slice(DAY * 28 + 5, DAY * 28 + 11)
    completed[2, bad] = volume[2, bad] // 3
    (row,) = found(counts_of(volume, completed), 5).anomalies
    assert (row.skill_name, row.metric, row.anomaly_type) == ("s2", "completion", "drop")
    hours = [int(t.timestamp()) // 3600 - ORIGIN for t in (row.window_start, row.window_end)]
    assert abs(hours[0] - bad.start) <= 1
    assert abs(hours[1] - bad.stop) <= 1
    assert row.n == volume[2, hours[0] : hours[1]].sum()
    assert row.observed_value == pytest.approx(
        completed[2, hours[0] : hours[1]].sum() / row.n, abs=1e-9
    )
    assert row.baseline_value == pytest.approx(0.9, abs=0.04)
    assert row.deviation_score < -5
    assert row.p_value <= row.q_value <= 0.05


def test_silence_spikes_and_hangs_have_their_metric() -> None:
    volume, completed = steady(2, days=36)
    seconds = 2.0 * volume.astype(float)
    at = slice(DAY * 35 + 2, DAY * 35 + 12)
    volume[0, at] = completed[0, at] = 0
    volume[1, at] *= 6
    completed[1, at] *= 6
    seconds[3, at] *= 20
    seconds[1] = 2.0 * volume[1]
    rng = np.random.default_rng(1)
    counts = counts_of(volume, completed, seconds * rng.uniform(0.8, 1.2, seconds.shape))
    report = found(counts, 5, days=36)
    assert {(a.skill_name, a.metric, a.anomaly_type) for a in report.anomalies} == {
        ("s0", "volume", "drop"),
        ("s1", "volume", "spike"),
        ("s3", "duration", "spike"),
    }


def test_nothing_is_found_on_ordinary_days() -> None:
    """Eight days of five skills, three metrics, q = .05: not more than one alert."""
    alerts = sum(len(found(counts_of(*steady(100 + day)), 5).anomalies) for day in range(8))
    assert alerts <= 1


def test_rows_may_come_in_any_order_and_skills_under_any_number() -> None:
    volume, completed = steady(3, skills=4)
    completed[1, -20:-8] //= 2
    counts = counts_of(volume, completed)
    shuffled = np.random.default_rng(5).permutation(len(counts.hour))
    other = HourlyCounts(**{f.name: getattr(counts, f.name)[shuffled] for f in fields(counts)})
    assert found(counts, 4) == found(other, 4)
    turned = replace(counts, skill=3 - counts.skill)
    names = [f"s{3 - i}" for i in range(4)]
    again = find_anomalies(
        names, turned, score_from=ORIGIN + DAY * 28, end=ORIGIN + DAY * 29
    ).anomalies
    mine = found(counts, 4).anomalies
    assert [(a.skill_name, a.metric, a.window_start) for a in again] == [
        (a.skill_name, a.metric, a.window_start) for a in mine
    ]


def test_hours_are_judged_by_the_past_alone() -> None:
    """Whatever happens from noon on, what was found before noon stays as it is."""
    volume, completed = steady(4)
    completed[0, DAY * 28 + 2 : DAY * 28 + 8] = 0
    noon = {"end": ORIGIN + DAY * 28 + 12}
    before = found(counts_of(volume, completed), 5, **noon)
    completed[:, DAY * 28 + 12 :] = 0
    assert found(counts_of(volume, completed), 5, **noon) == before


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_all_or_none_completed_is_no_anomaly(rate: float) -> None:
    volume, _ = steady(5)
    completed = (volume * rate).astype(np.int64)
    assert found(counts_of(volume, completed), 5, metrics=("completion",)).anomalies == ()


def test_a_constant_series_is_no_anomaly_and_its_break_is_one() -> None:
    volume = np.full((1, DAY * 29), 10)
    assert found(counts_of(volume, volume), 1).anomalies == ()
    completed = volume.copy()
    completed[0, -6:] = 5
    (row,) = found(counts_of(volume, completed), 1).anomalies
    assert (row.metric, row.anomaly_type) == ("completion", "drop")


@pytest.mark.parametrize("rows", [0, 1])
def test_too_little_data_is_said(rows: int) -> None:
    one = np.array([ORIGIN][:rows], dtype=np.int64)
    ones = np.ones(rows, dtype=np.int64)
    counts = HourlyCounts(np.zeros_like(one), one, ones, ones, ones, ones, np.ones(rows))
    report = find_anomalies(["a"], counts, score_from=ORIGIN, end=ORIGIN + 48)
    assert report.anomalies == ()
    assert {status.metric for status in report.statuses} == {"completion", "volume", "duration"}
    assert all("not enough data" in str(status.reason) for status in report.statuses)


def test_a_million_calls_of_one_skill() -> None:
    """Counts of any size: 1,500 an hour, and a fall of five points for three hours."""
    volume, completed = steady(6, skills=1, per_hour=1_500.0, rate=0.95)
    assert volume.sum() > 1_000_000
    assert found(counts_of(volume, completed), 1, metrics=("completion",)).anomalies == ()
    completed[0, -8:-5] = (0.90 * volume[0, -8:-5]).astype(np.int64)
    (row,) = found(counts_of(volume, completed), 1, metrics=("completion",)).anomalies
    assert row.anomaly_type == "drop"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"duration_sum": np.array([np.nan])}, "duration_sum"),
        ({"duration_sum": np.array([np.inf])}, "duration_sum"),
        ({"volume": np.array([-1])}, "volume"),
        ({"completed": np.array([5])}, "completed is more than"),
        ({"decided": np.array([2])}, "decided is more than"),
        ({"skill": np.array([7])}, "beyond the 1 names"),
        ({"hour": np.array([1, 2])}, "differ in length"),
    ],
)
def test_impossible_counts_are_refused_by_name(change: dict[str, Array], words: str) -> None:
    one = np.ones(1, dtype=np.int64)
    counts = HourlyCounts(np.zeros(1, dtype=np.int64), one, one, one, one, one, np.ones(1))
    with pytest.raises(ValueError, match=words):
        find_anomalies(["a"], replace(counts, **change), score_from=2, end=3)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"q": 0.0}, "q = 0.0"),
        ({"q": float("nan")}, "q = nan"),
        ({"end": ORIGIN}, "end = "),
        ({"metrics": ()}, "metrics"),
        ({"metrics": ("speed",)}, "metrics"),
        ({"metrics": ("volume", "volume")}, "metrics"),
    ],
)
def test_impossible_parameters_are_refused_by_name(how: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        found(counts_of(*steady(7, skills=1)), 1, **how)


# --- lasting falls --------------------------------------------------------------------------------


def test_a_lasting_fall_is_dated_and_a_recovery_ends_it() -> None:
    rng = np.random.default_rng(8)
    decided = np.full((12, 56), 4.0)
    completed = rng.binomial(4, 0.93, decided.shape).astype(float)
    completed[5, 47:] = rng.binomial(4, 0.5, 9)
    (fall,), judged = lasting_falls(completed, decided, earliest=28)
    assert judged == 12
    assert fall.skill == 5
    assert abs(fall.since - 47) <= 1
    assert fall.n == 4 * (56 - fall.since)
    assert fall.rate_before == pytest.approx(completed[5, : fall.since].sum() / (4 * fall.since))
    assert fall.p_value < 1e-3
    completed[5, 50:] = 4
    assert not [one for one in lasting_falls(completed, decided, earliest=28)[0] if one.skill == 5]


def test_ordinary_skills_rarely_fall() -> None:
    """600 skills: at most 5 % have p <= .05, Bonferroni over boundaries makes it far fewer."""
    rng = np.random.default_rng(9)
    decided = rng.poisson(5, (600, 56)).astype(float)
    falls, judged = lasting_falls(rng.binomial(decided.astype(int), 0.9), decided, earliest=28)
    assert judged == 600
    assert sum(fall.p_value <= 0.05 for fall in falls) <= 30


def test_a_slow_drift_is_no_fall() -> None:
    rng = np.random.default_rng(10)
    decided = np.full((1, 56), 40.0)
    completed = rng.binomial(40, np.linspace(0.95, 0.6, 56))[None].astype(float)
    assert lasting_falls(completed, decided, earliest=28)[0] == []


@pytest.mark.parametrize("days", [0, 1, 14])
def test_a_short_record_has_no_lasting_falls(days: int) -> None:
    ones = np.ones((2, days))
    assert lasting_falls(ones, ones, earliest=0) == ([], 0)


# --- since when, what moved -----------------------------------------------------------------------


def test_a_shift_is_found_at_its_step() -> None:
    rng = np.random.default_rng(11)
    residual = rng.normal(size=60)
    residual[45:] += 4.0
    shift = find_shift(residual, np.ones(60))
    assert shift is not None
    assert abs(shift.index - 45) <= 1
    assert shift.low <= shift.index <= shift.high
    assert find_shift(np.zeros(3), np.zeros(3)) is None
    with pytest.raises(ValueError, match="shape"):
        find_shift(np.zeros(3), np.ones(2))


def test_a_harmless_version_of_the_same_day_is_not_first() -> None:
    total = ValueCounts("total", "", 200, 10, 200, 60)
    guilty = ValueCounts("agent_version", "bad", 0, 0, 90, 55)
    harmless = ValueCounts("model", "new", 0, 0, 100, 35)
    (first, second) = coincident_changes(total, [harmless, guilty]).suspects
    assert (first.counts, second.counts) == (guilty, harmless)
    assert first.weight > 0.99
    assert first.explained == pytest.approx((55 - 90 * 0.05) / (60 - 200 * 0.05))


def test_fishers_test_is_scipys() -> None:
    from scipy.stats import hypergeom

    total = ValueCounts("total", "", 50, 2, 40, 12)
    value = ValueCounts("model", "a", 20, 1, 15, 9)
    (suspect,) = coincident_changes(total, [value]).suspects
    assert suspect.p_value == pytest.approx(hypergeom(40, 12, 15).sf(8))


def test_the_value_whose_calls_are_missing_comes_first() -> None:
    """A hundred calls expected, forty came; all that are missing were of one project."""
    total = ValueCounts("total", "", 1000, 0, 40, 0)
    values = [
        ValueCounts("project_id", "gone", 600, 0, 0, 0),
        ValueCounts("project_id", "there", 400, 0, 40, 0),
        ValueCounts("model", "m", 1000, 0, 40, 0),
    ]
    gone, model = moved_shares(total, values, 100.0)
    assert (model.counts.value, model.explained, model.p_value) == ("m", 1.0, 1.0)
    assert (gone.counts.value, gone.explained) == ("gone", 1.0)
    assert gone.p_value < 1e-12
    assert moved_shares(total, values, 40.0) == ()


@pytest.mark.parametrize(
    "value", [ValueCounts("a", "x", 5, 6, 0, 0), ValueCounts("a", "x", 9, 0, 0, 0)]
)
def test_impossible_values_are_refused_by_name(value: ValueCounts) -> None:
    with pytest.raises(ValueError, match="a 'x'"):
        coincident_changes(ValueCounts("total", "", 8, 1, 8, 4), [value])


# --- from one search to the next ------------------------------------------------------------------

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def event(begin: int, end: int, metric: Metric = "completion", q: float = 0.001) -> Anomaly:
    """Hours relative to noon."""
    edges = (NOON + timedelta(hours=begin), NOON + timedelta(hours=end))
    return Anomaly("a", metric, "drop", *edges, 10, 0.9, 0.5, -4.0, 1e-6, q)


def search_at(now: int, *events: Anomaly, known: tuple[Known, ...] = (), **how: Any) -> Any:
    report = AnomalyReport(events, tuple((e.window_start, e.window_end) for e in events), ())
    how = {"fresh_from": NOON + timedelta(hours=now - 1)} | how
    return reconcile(
        known,
        report,
        NOON + timedelta(hours=now),
        searched_from=NOON - timedelta(days=2),
        **how,
    )


def test_a_new_event_is_opened_once_and_then_updated() -> None:
    first = event(-2, 0)
    assert search_at(0, first).opened == ((first, None),)
    grown = event(-2, 1)
    done = search_at(1, grown, known=(Known(7, first),))
    assert (done.opened, done.updated) == ((), (Known(7, grown),))


def test_a_weak_event_is_not_opened_but_keeps_an_open_row() -> None:
    weak = event(-2, 0, q=0.06)
    assert search_at(0, weak).opened == ()
    assert search_at(0, weak, known=(Known(7, event(-2, 0)),)).retracted == ()


def test_a_day_of_quiet_resolves() -> None:
    row = Known(7, event(-2, 0))
    assert search_at(23, event(-2, 0), known=(row,)).resolved == ()
    assert search_at(24, event(-2, 0), known=(row,)).resolved == (row,)


def test_what_is_not_there_any_more_is_retracted_or_over() -> None:
    """Searched again and not found: untrue. A lasting fall that ends was true while it lasted."""
    window, lasting = Known(7, event(-2, 0)), Known(8, event(-24 * 9, 0))
    done = search_at(1, known=(window, lasting))
    assert (done.retracted, done.resolved) == ((window,), (lasting,))


def test_hours_searched_before_open_nothing() -> None:
    assert search_at(10, event(-2, 0)).opened == ()
    late = search_at(10, event(-2, 0), fresh_from=NOON - timedelta(hours=1))
    assert len(late.opened) == 1


def test_a_resolved_event_is_not_opened_again() -> None:
    old = event(-30, -28)
    fresh = NOON - timedelta(days=2)
    assert len(search_at(0, old, fresh_from=fresh).opened) == 1
    assert search_at(0, old, fresh_from=fresh, settled=(old,)).opened == ()
