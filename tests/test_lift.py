"""Lift: the counts against mlxtend, the null model against enumeration, false alarms, edges.

The larger comparisons are `tests/validate/validate_lift.py`.
"""

from __future__ import annotations

import doctest
import warnings
from itertools import combinations
from math import comb
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sb_serving.stats import lift as lift_module
from sb_serving.stats import session_null
from sb_serving.stats.fdr import benjamini_hochberg
from sb_serving.stats.intervals import wilson
from sb_serving.stats.lift import (
    LiftPair,
    compare_expected,
    lift,
    ordered_pairs,
    relationship,
    substitutes,
    wilson_ends,
)
from sb_serving.stats.session_null import PairCounts, count_pairs, fit_null, session_matrix

Rows = tuple[NDArray[np.int64], NDArray[np.int64]]


def counted(sessions: list[str]) -> tuple[list[str], PairCounts]:
    """Count sessions given as strings of one-letter skills; repeats are meant."""
    names = sorted(set("".join(sessions)))
    rows = [(s, names.index(skill)) for s, held in enumerate(sessions) for skill in held]
    session, skill = zip(*rows, strict=True) if rows else ((), ())
    return names, count_pairs(session_matrix(session, skill, len(names)))


def measured(sessions: list[str], min_count: int = 1) -> dict[str, LiftPair]:
    names, counts = counted(sessions)
    return {pair.a + pair.b: pair for pair in lift(names, counts, min_count=min_count)}


def drawn(rng: np.random.Generator, sizes: NDArray[np.int64], weights: NDArray[np.float64]) -> Rows:
    """Sessions of these sizes, skills drawn without replacement: no association but the sizes."""
    key = np.log(weights) + rng.gumbel(size=(len(sizes), len(weights)))
    ranked = np.argsort(-key, axis=1)
    session, place = np.nonzero(np.arange(len(weights)) < sizes[:, None])
    return session, ranked[session, place]


def pairs_of(rows: Rows, n_skills: int, min_count: int = 5) -> list[LiftPair]:
    names = [f"s{i:03d}" for i in range(n_skills)]
    return lift(names, count_pairs(session_matrix(*rows, n_skills)), min_count=min_count)


def test_lift_counts_sessions_not_rows() -> None:
    """The predecessor gave .333 here: it had no session count and paired rows."""
    pair = measured(["AB", "AB", "A", "C"])["AB"]
    assert (pair.n_sessions, pair.n_a, pair.n_b, pair.n_ab) == (4, 3, 2, 2)
    assert pair.lift == pytest.approx(4 / 3)
    assert pair.support == 0.5
    assert pair.confidence_ab == pytest.approx(2 / 3)
    assert pair.confidence_ba == 1.0


def test_repeats_inside_a_session_are_one() -> None:
    pair = measured(["AAAAAABBBBBB", "C"])["AB"]
    assert pair.n_ab == 1
    assert pair.lift == 2.0


def test_sessions_without_a_skill_count_when_the_caller_says_so() -> None:
    matrix = session_matrix([0, 0, 1, 1], [0, 1, 0, 1], 2)
    assert lift(["a", "b"], count_pairs(matrix), min_count=1)[0].lift == 1.0
    assert lift(["a", "b"], count_pairs(matrix, n_sessions=8), min_count=1)[0].lift == 4.0


def test_support_confidence_and_lift_equal_mlxtend() -> None:
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlxtend.frequent_patterns import (  # type: ignore[import-untyped]
            association_rules,
            fpgrowth,
        )

        rng = np.random.default_rng(3)
        rows = drawn(rng, rng.integers(1, 9, 600), 1 / np.arange(1, 31))
        matrix = session_matrix(*rows, 30)
        frame = pd.DataFrame(
            matrix.toarray().astype(bool), columns=[f"s{i:03d}" for i in range(30)]
        )
        frequent = fpgrowth(frame, min_support=4.5 / 600, use_colnames=True, max_len=2)
        rules = association_rules(frequent, num_itemsets=600, metric="support", min_threshold=0)
    oracle = {
        (min(r.antecedents), min(r.consequents)): (r.support, r.confidence, r.lift)
        for r in rules.itertuples()
    }
    ours = {}
    for p in pairs_of(rows, 30):
        ours[p.a, p.b] = (p.support, p.confidence_ab, p.lift)
        ours[p.b, p.a] = (p.support, p.confidence_ba, p.lift)
    assert ours.keys() == oracle.keys()
    assert len(ours) > 100
    for pair, values in ours.items():
        assert values == pytest.approx(oracle[pair], abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 25), st.integers(0, 7)), min_size=1), st.randoms())
def test_neither_row_order_nor_copies_change_the_answer(
    rows: list[tuple[int, int]], random: object
) -> None:
    again = [*rows, *rows[: len(rows) // 2]]
    random.shuffle(again)  # type: ignore[attr-defined]
    one, two = (
        pairs_of((np.array([s for s, _ in r]), np.array([i for _, i in r])), 8, min_count=2)
        for r in (rows, again)
    )
    assert one == two
    for pair in one:
        assert 0 < pair.lift_low <= pair.lift * (1 + 1e-9)
        assert pair.lift <= pair.lift_high * (1 + 1e-9)
        assert 0 <= pair.p_value <= pair.q_value <= 1
        assert pair.a < pair.b
        assert pair.n_ab >= 2


def test_skill_numbers_do_not_matter_only_names() -> None:
    rng = np.random.default_rng(5)
    session, skill = drawn(rng, rng.integers(1, 6, 200), 1 / np.arange(1, 13))
    names = np.array([f"s{i:03d}" for i in range(12)])
    turn = rng.permutation(12)
    one = lift(list(names), count_pairs(session_matrix(session, skill, 12)))
    two = lift(list(names[turn]), count_pairs(session_matrix(session, np.argsort(turn)[skill], 12)))
    for mine, other in zip(one, two, strict=True):
        assert (mine.a, mine.b, mine.n_ab) == (other.a, other.b, other.n_ab)
        assert mine.p_value == pytest.approx(other.p_value, rel=1e-6)


@pytest.mark.parametrize("sessions", [[], ["A"], ["A", "A", "A"], ["AAAA"], ["A", "B", "C"]])
def test_no_pair_no_answer(sessions: list[str]) -> None:
    names, counts = counted(sessions)
    assert lift(names, counts, min_count=1) == []
    assert substitutes(names, counts) == []


def test_equal_sessions_are_no_association() -> None:
    """All sessions hold the same three skills: nothing could be otherwise, so nothing is found."""
    pairs = measured(["ABC"] * 40)
    assert len(pairs) == 3
    assert all(p.lift == 1 and p.p_value == 1 and not p.significant for p in pairs.values())


def test_a_skill_of_every_session_goes_with_none() -> None:
    sessions = ["A" + "BCDE"[i % 4] + "FG"[i % 2] for i in range(60)]
    found = measured(sessions)
    assert all(pair.p_value == pytest.approx(1) for name, pair in found.items() if "A" in name)


def test_the_null_model_equals_enumeration() -> None:
    """Chances of skills and pairs in a session of size 3 out of 6, by listing all twenty."""
    odds = np.array([0.01, 0.3, 1.0, 1.0, 8.0, 900.0])
    weight = {held: np.prod(odds[list(held)]) for held in combinations(range(6), 3)}
    total = sum(weight.values())
    tilt = session_null._tilts(np.log(odds)[None], np.ones(6, dtype=np.int64), np.array([3]))
    model = session_null._Inclusion(np.log(odds) + tilt[0], np.ones(6, dtype=np.int64), 3)
    single, pairs = model.single(), model.pairs(np.arange(6))
    for i in range(6):
        mass = sum(w for held, w in weight.items() if i in held)
        assert single[i] == pytest.approx(mass / total, rel=1e-9)
    for i, j in combinations(range(6), 2):
        mass = sum(w for held, w in weight.items() if i in held and j in held)
        assert pairs[i, j] == pytest.approx(mass / total, rel=1e-9)


def test_the_null_model_keeps_sizes_and_counts() -> None:
    rng = np.random.default_rng(2)
    sizes = np.clip(np.exp(rng.normal(1.4, 1.0, 300)).round(), 1, 40).astype(np.int64)
    counts = count_pairs(session_matrix(*drawn(rng, sizes, 1 / np.arange(1, 61)), 60))
    null = fit_null(counts, own_slope_from=1)
    assert null.margin_error < 1e-4
    held = np.flatnonzero(counts.skill_sessions)
    # However skills are dealt, sessions of these sizes hold this many pairs.
    assert null.moments(held)[0].sum() / 2 == pytest.approx(
        (sizes * (sizes - 1) / 2).sum(), rel=1e-6
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sets(st.integers(0, 6), min_size=1), min_size=1, max_size=40))
def test_the_fit_meets_its_margins_however_odd_the_sessions(sessions: list[set[int]]) -> None:
    """Two skills that take turns made the first version swing for ever instead of settling."""
    rows = [(s, skill) for s, held in enumerate(sessions) for skill in held]
    session, skill = zip(*rows, strict=True)
    counts = count_pairs(session_matrix(session, skill, 7))
    assert fit_null(counts, own_slope_from=1).margin_error < 0.05


def test_rare_skills_may_share_a_class() -> None:
    rng = np.random.default_rng(4)
    rows = drawn(rng, rng.integers(1, 12, 150), 1 / np.arange(1, 101) ** 1.3)
    counts = count_pairs(session_matrix(*rows, 100))
    frequent = np.flatnonzero(counts.skill_sessions >= 5)
    own = fit_null(counts, own_slope_from=1).moments(frequent)[0]
    shared = fit_null(counts, own_slope_from=5)
    assert len(shared.class_skills) < (counts.skill_sessions > 0).sum()
    assert shared.moments(frequent)[0] == pytest.approx(own, rel=0.03)


@pytest.mark.parametrize(
    ("n", "n_a", "n_b", "n_ab"),
    [(50, 5, 5, 3), (200, 20, 30, 9), (200, 20, 30, 20), (2000, 400, 300, 80), (20, 8, 8, 7)],
)
def test_the_tail_is_fishers_within_a_few_per_cent(n: int, n_a: int, n_b: int, n_ab: int) -> None:
    ways = [comb(n_a, t) * comb(n - n_a, n_b - t) for t in range(min(n_a, n_b) + 1)]
    args = [np.array([float(x)]) for x in (n_ab, n_a, n_b, n_a * n_b / n)]
    exact = sum(ways[n_ab:]) / sum(ways)
    assert lift_module._upper_tail(*args)[0] == pytest.approx(exact, rel=0.08)
    lower = sum(ways[: n_ab + 1]) / sum(ways)
    assert lift_module._lower_tail(*args)[0] == pytest.approx(lower, rel=0.05)


def test_long_sessions_hold_everything_and_that_is_no_association() -> None:
    """A tenth of the sessions are long: most lifts are far above 1 and no pair belongs together."""
    rng = np.random.default_rng(8)
    found = 0
    for _ in range(4):
        sizes = np.where(rng.random(400) < 0.1, rng.integers(15, 35, 400), rng.integers(1, 4, 400))
        pairs = pairs_of(drawn(rng, sizes, 1 / np.arange(1, 61)), 60)
        assert np.median([pair.lift for pair in pairs]) > 1.5
        found += sum(pair.significant for pair in pairs)
    assert found == 0


def test_skills_that_prefer_long_sessions_are_not_associated_by_it() -> None:
    """Random calls, heavy-tailed activity: without the size slope dozens of pairs were found."""
    rng = np.random.default_rng(9)
    calls = rng.poisson(np.exp(rng.normal(1.5, 1.0, 6000)))
    weights = 1 / np.arange(1, 81)
    session = np.repeat(np.arange(6000), calls)
    skill = rng.choice(80, len(session), p=weights / weights.sum())
    assert not any(pair.significant for pair in pairs_of((session, skill), 80))


def test_a_planted_pair_is_found_and_stands_first() -> None:
    rng = np.random.default_rng(10)
    session, skill = drawn(rng, rng.integers(1, 8, 500), np.ones(40))
    with_a = np.unique(session[skill == 11])
    then_b = with_a[rng.random(len(with_a)) < 0.5]
    rows = np.r_[session, then_b], np.r_[skill, np.full(len(then_b), 29)]
    pairs = pairs_of(rows, 40)
    assert (pairs[0].a, pairs[0].b) == ("s011", "s029")
    assert [pair.significant for pair in pairs[:2]] == [True, False]
    assert pairs[0].lift_low > 1
    assert pairs[0].expected < pairs[0].n_ab / 2


def test_the_interval_holds_the_true_lift() -> None:
    rng = np.random.default_rng(12)
    for n, p_a, p_b, true in [(300, 0.1, 0.2, 1.5), (300, 0.05, 0.4, 2.3), (2000, 0.02, 0.02, 9.0)]:
        p = true * p_a * p_b
        cells = rng.multinomial(n, [p, p_a - p, p_b - p, 1 - p_a - p_b + p], size=2000)
        cells = cells[cells[:, 0] > 0]
        n_ab = cells[:, 0].astype(float)
        low, high = lift_module._lift_interval(n, n_ab + cells[:, 1], n_ab + cells[:, 2], n_ab)
        assert np.mean((low <= true) & (true <= high)) == pytest.approx(0.955, abs=0.02)


def test_two_tools_for_one_job_are_substitutes() -> None:
    """Each session uses one of two test runners: they never meet, so no listed pair shows it."""
    rng = np.random.default_rng(13)
    session, skill = drawn(rng, rng.integers(2, 6, 300), np.ones(20))
    runner = np.where(rng.random(300) < 0.5, 20, 21)
    rows = np.r_[session, np.arange(300)], np.r_[skill, runner]
    names = [f"s{i:03d}" for i in range(22)]
    counts = count_pairs(session_matrix(*rows, 22))
    found = substitutes(names, counts)
    assert [(pair.a, pair.b, pair.n_ab) for pair in found] == [("s020", "s021", 0)]
    assert found[0].lift == 0
    assert found[0].expected > 40
    assert not any({p.a, p.b} == {"s020", "s021"} for p in lift(names, counts))


def test_order_counts_first_uses_and_leaves_ties_out() -> None:
    # (session, skill, time): b comes back after a in session 0; session 3 cannot tell.
    rows = [(0, 0, 1), (0, 1, 2), (0, 0, 3), (1, 0, 1), (1, 1, 5), (2, 1, 0), (2, 0, 9)]
    rows += [(3, 0, 4), (3, 1, 4), (4, 0, 1)]
    session, skill, at = zip(*rows, strict=True)
    (pair,) = ordered_pairs(["b", "a"], session, skill, at, min_count=2)
    assert (pair.first, pair.then) == ("b", "a")
    assert (pair.n_both, pair.n_forward, pair.n_backward, pair.n_tied) == (4, 2, 1, 1)
    assert pair.share == pytest.approx(2 / 3)
    assert pair.share_low < pair.share < pair.share_high
    assert pair.p_value == 1


def test_the_order_test_is_the_exact_sign_test() -> None:
    session = np.repeat(np.arange(12), 2)
    skill = np.tile([0, 1], 12)
    at = np.where((session < 2) == (skill == 0), 2, 1)
    (pair,) = ordered_pairs(["x", "y"], session, skill, at)
    assert (pair.first, pair.n_forward, pair.n_backward) == ("x", 10, 2)
    assert pair.p_value == pytest.approx(2 * sum(comb(12, t) for t in range(3)) / 2**12)
    assert pair.significant == (pair.p_value <= 0.05)


def test_random_order_is_no_order() -> None:
    rng = np.random.default_rng(14)
    session, skill = drawn(rng, rng.integers(2, 8, 400), np.ones(15))
    names = [f"s{i}" for i in range(15)]
    pairs = ordered_pairs(names, session, skill, rng.random(len(session)))
    assert len(pairs) == 105
    assert not any(pair.significant for pair in pairs)
    assert ordered_pairs(names, [], [], []) == []


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (3.0, "very_strong"),
        (2.99, "strong"),
        (1.5, "moderate"),
        (1.01, "weak_positive"),
        (1.0, "independent"),
        (0.51, "weak_negative"),
        (0.5, "moderate_negative"),
        (0.0, "moderate_negative"),
    ],
)
def test_relationship_names(value: float, name: str) -> None:
    assert relationship(value) == name


def test_the_intervals_of_many_rates_are_wilsons() -> None:
    n = np.repeat([1, 7, 1_000, 10**6], 5)
    k = (n * np.tile([0.0, 0.01, 0.5, 0.99, 1.0], 4)).astype(int)
    low, high = wilson_ends(k, n)
    expected = [wilson(count, of) for count, of in zip(k.tolist(), n.tolist(), strict=True)]
    assert low == pytest.approx([one for one, _ in expected], abs=1e-15)
    assert high == pytest.approx([one for _, one in expected], abs=1e-15)


def test_bad_arguments_are_named() -> None:
    names, counts = counted(["AB", "AB"])
    with pytest.raises(ValueError, match="at least 1, not 0"):
        lift(names, counts, min_count=0)
    with pytest.raises(ValueError, match="q must lie between 0 and 1, not 1"):
        lift(names, counts, q=1)
    with pytest.raises(ValueError, match="1 names for 2 skills"):
        lift(["A"], counts)
    with pytest.raises(ValueError, match=r"skill must lie in 0\.\.1"):
        session_matrix([0], [2], 2)
    with pytest.raises(ValueError, match="session has shape"):
        session_matrix([0, 1], [1], 2)
    with pytest.raises(ValueError, match="at has shape"):
        ordered_pairs(["A"], [0, 1], [0, 0], [1])
    with pytest.raises(ValueError, match="min_count = 0"):
        ordered_pairs(["A"], [0], [0], [1], min_count=0)
    with pytest.raises(ValueError, match="not -1"):
        relationship(-1)
    with pytest.raises(ValueError, match="not nan"):
        relationship(float("nan"))


def test_counts_of_different_sessions_are_refused() -> None:
    _, counts = counted(["AB", "AB"])
    fields = {name: getattr(counts, name) for name in counts.__dataclass_fields__}
    with pytest.raises(ValueError, match="add to 5 and session sizes to 4"):
        PairCounts(**{**fields, "skill_sessions": np.array([2, 3])})
    with pytest.raises(ValueError, match="n_sessions = 1 is below"):
        PairCounts(**{**fields, "n_sessions": 1})


def test_benjamini_hochberg_by_hand() -> None:
    q = benjamini_hochberg([0.04, 0.01, 0.03, 0.5])
    assert q == pytest.approx([0.16 / 3, 0.04, 0.16 / 3, 0.5])
    # Sixteen tests that were not worth computing count as p = 1.
    assert benjamini_hochberg([0.01, 0.04], m=20) == pytest.approx([0.2, 0.4])
    assert benjamini_hochberg([]).shape == (0,)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1)), st.integers(0, 50), st.floats(0.001, 0.999))
def test_benjamini_hochberg_is_the_step_up_rule(p: list[float], more: int, level: float) -> None:
    m = len(p) + more
    ranked = sorted(p)
    passed = [r for r, value in enumerate(ranked, 1) if value / (r / m) <= level]
    last = ranked[passed[-1] - 1] if passed else -1.0
    q = benjamini_hochberg(p, m=m)
    assert ((q <= level) == (np.array(p) <= last)).all()
    assert (q >= np.array(p)).all()


def test_benjamini_hochberg_refuses_what_is_no_p_value() -> None:
    for bad in ([0.1, float("nan")], [-0.1], [1.1]):
        with pytest.raises(ValueError, match="p-values"):
            benjamini_hochberg(bad)
    with pytest.raises(ValueError, match="m = 1 is smaller"):
        benjamini_hochberg([0.1, 0.2], m=1)
    with pytest.raises(ValueError, match="one dimension, not 2"):
        benjamini_hochberg([[0.1]])


def test_the_worked_example_of_the_documentation() -> None:
    page = Path(__file__).parents[1] / "docs" / "statistics" / "lift.md"
    result = doctest.testfile(str(page), module_relative=False)
    assert result.attempted > 0
    assert result.failed == 0


# --- expected pairs


@pytest.mark.parametrize(
    ("counts", "expected_lift", "significant", "verdict"),
    [
        ((1_000, 100, 100, 40), 3.5, True, "found"),
        ((1_000, 100, 100, 10), 3.5, False, "not_found"),
        ((1_000, 100, 100, 10), None, False, "not_enough_data"),
        ((100_000, 10_000, 10_000, 1_000), None, False, "not_found"),
        ((1_000, 100, 100, 0), None, False, "not_found"),
        ((1_000, 3, 4, 0), 3.5, False, "not_enough_data"),
        ((1_000, 0, 100, 0), 3.5, False, "not_enough_data"),
        ((0, 0, 0, 0), None, False, "not_enough_data"),
    ],
)
def test_an_expected_pair_is_found_or_not_or_cannot_be_told(
    counts: tuple[int, int, int, int],
    expected_lift: float | None,
    significant: bool,
    verdict: str,
) -> None:
    """Ten joint sessions where ten are independent: a lift of 1 (0.55 to 1.8), below 3.5."""
    found = compare_expected(*counts, expected_lift=expected_lift, significant=significant)
    assert found.verdict == verdict
    n, n_a, n_b, n_ab = counts
    if not n_a or not n_b:
        assert (found.lift, found.low, found.high) == (None, None, None)
        return
    assert found.lift == pytest.approx(n * n_ab / (n_a * n_b))
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.lift < found.high


def test_a_pair_that_never_met_has_the_largest_share_over_the_least_base() -> None:
    """None of the rarer skill's three sessions: Wilson's upper end is z2 / (3 + z2)."""
    z2 = 1.959963984540054**2
    found = compare_expected(1_000, 3, 500, 0, expected_lift=None, significant=False)
    assert found.high == pytest.approx(z2 / (3 + z2) / wilson(500, 1_000)[0])
