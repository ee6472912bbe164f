"""Training: what may teach, what is served, how it is judged, stored and explained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from sb_pipelines.analyze import analyze
from sb_pipelines.training import evaluate, features, fit
from sb_serving import sql
from sb_serving.demo import DemoPlan, chunks
from sb_serving.errors import SbError
from sb_serving.predict import PREFIX, Predictor
from sb_serving.snapshot import Snapshot, publish, put_array
from sb_serving.stats import success
from tests.runs import Columns, events_of, history_of

END = datetime(2026, 11, 22, 12, tzinfo=UTC)
PLAN = DemoPlan(n=3_000, seed=2, end=END, days=30, skills=24)
COLUMNS = (
    "event_id", "skill_name", "invoked_at", "outcome", "duration_seconds", "session_id",
    "user_id", "workflow_phase", "agent", "agent_version", "model",
)  # fmt: skip


def demo(plan: DemoPlan) -> Columns:
    (chunk,) = chunks(plan)
    return {name: chunk[name] for name in COLUMNS}


def cut_of(events: Columns, share: float) -> int:
    """The moment before which this share of the events started."""
    return int(np.quantile(events["invoked_at"].astype("datetime64[us]").astype(np.int64), share))


@pytest.fixture(scope="module", autouse=True)
def _few_trees() -> Iterator[None]:
    """What is tested here does not depend on how many trees there are; the time does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "TREES", 30)
        patch.setattr(fit, "BLOCK_TREES", 15)
        yield


@pytest.fixture(scope="module")
def events() -> Columns:
    return demo(PLAN)


@pytest.fixture(scope="module")
def history(events: Columns) -> features.History:
    return history_of(events)


@pytest.fixture(scope="module")
def learned(history: features.History, events: Columns) -> fit.Learned:
    return fit.learn(history, cut_of(events, 0.8))


# --- what is served -----------------------------------------------------------------------------


def test_a_signal_is_found_and_the_model_served(
    learned: fit.Learned, history: features.History, events: Columns
) -> None:
    assert learned.predictor.choice == "forest_and_logistic"
    assert "better than the skill's shrunk rate" in learned.reason
    later = np.flatnonzero((history.asked_at >= cut_of(events, 0.8)) & history.decided)
    rows, outcome = history.rows(later), history.completed[later]
    served = evaluate.losses(outcome, learned.predictor.probability(rows)).mean()
    rate = success.shrunk_rate(rows, learned.predictor.strength)
    assert served < evaluate.losses(outcome, rate).mean()


def test_without_a_signal_the_shrunk_rate_is_served() -> None:
    events = demo(replace(PLAN, signal=False, planted_failure=False, n=2_000))
    found = fit.learn(history_of(events), cut_of(events, 1.0))
    assert found.predictor.choice == "shrunk_rate"
    assert found.reason.startswith("no better than the skill's shrunk rate")
    assert found.predictor.model is None
    assert found.scores


def test_training_looks_at_nothing_that_was_not_known(
    learned: fit.Learned, events: Columns
) -> None:
    """Outcomes that were open at the cut are flipped, and the events after it are dropped."""
    cut = cut_of(events, 0.8)
    start = events["invoked_at"].astype("datetime64[us]").astype(np.int64)
    lasted = np.ma.filled(events["duration_seconds"], 0.0)
    unknown = start + np.round(lasted * 1e6).astype(np.int64) >= cut
    outcome = np.where(unknown, "failed", events["outcome"])
    kept = start < cut
    changed = {name: column[kept] for name, column in (events | {"outcome": outcome}).items()}
    again = fit.learn(history_of(changed), cut)
    assert again.reason == learned.reason
    for name, array in learned.predictor.arrays().items():
        assert np.array_equal(array, again.predictor.arrays()[name]), name


def test_too_few_runs_are_not_enough_data(history: features.History, events: Columns) -> None:
    found = fit.learn(history, cut_of(events, 0.1))
    assert found.predictor.choice == "not_enough_data"
    assert found.reason.startswith("not enough data: ")
    assert "500 and 25 are needed" in found.reason
    with pytest.raises(ValueError, match="not enough data"):
        found.predictor.probability(history.rows(np.arange(3)))


def test_one_kind_of_outcome_is_not_enough_data(events: Columns) -> None:
    """Twenty completed runs once trained a model that failed at its first prediction."""
    only = events | {"outcome": np.full(PLAN.n, "completed", dtype=object)}
    found = fit.learn(history_of(only), cut_of(events, 1.0))
    assert found.predictor.choice == "not_enough_data"
    assert "0 of them of the rarer outcome" in found.reason


def test_outcomes_that_ended_long_ago_cannot_be_judged(events: Columns) -> None:
    """All failures lie in the first third: later runs hold one outcome only."""
    early = np.arange(PLAN.n) < PLAN.n / 3
    outcome = np.where(early, events["outcome"], "completed")
    found = fit.learn(history_of(events | {"outcome": outcome}), cut_of(events, 1.0))
    assert found.predictor.choice == "shrunk_rate"
    assert found.reason.startswith("the model cannot be judged yet")


def test_no_runs_are_not_enough_data(events: Columns) -> None:
    none = {name: column[:0] for name, column in events.items()}
    assert fit.learn(history_of(none), 0).predictor.choice == "not_enough_data"


# --- maturity -----------------------------------------------------------------------------------


def test_the_horizon_waits_for_slow_outcomes() -> None:
    """Half of the outcomes take an hour, half ten days; at the cut most slow ones are open."""
    rng = np.random.default_rng(1)
    day = 86_400_000_000
    asked = np.sort(rng.integers(0, 30 * day, 4_000))
    takes = np.where(rng.random(4_000) < 0.5, day // 24, 10 * day)
    found = fit.horizon(asked, asked + takes, 30 * day)
    assert found == 10 * day


def test_outcomes_that_never_come_leave_nothing_to_teach() -> None:
    asked = np.arange(1_000) * 1_000_000
    known = np.where(np.arange(1_000) % 10 == 0, asked + 10**15, asked + 1)
    assert fit.horizon(asked, known, 1_000_000_000) is None
    assert fit.horizon(asked[:0], known[:0], 0) is None


def test_quick_outcomes_have_a_short_horizon() -> None:
    asked = np.arange(1_000) * 1_000_000
    assert fit.horizon(asked, asked + 5, 10**10) == 5


# --- judging ------------------------------------------------------------------------------------


def test_auc_counts_pairs_and_ties_half() -> None:
    rng = np.random.default_rng(5)
    p = rng.integers(0, 6, 300) / 6
    outcome = rng.random(300) < p
    good, bad = p[outcome][:, None], p[~outcome][None]
    pairs = ((good > bad) + 0.5 * (good == bad)).mean()
    found = evaluate.scores(outcome, {"some": p}, np.arange(300), seed=0)[0]
    assert (found.metric, found.n) == ("auc", 300)
    assert found.value == pytest.approx(pairs)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(6)
    p = rng.beta(4, 2, 400)
    truth = -(p * np.log(p) + (1 - p) * np.log(1 - p))
    held = {"log_loss": 0, "brier": 0}
    for repeat in range(60):
        outcome = rng.random(400) < p
        for score in evaluate.scores(outcome, {"p": p}, np.arange(400), seed=repeat):
            if score.metric in held:
                expected = truth if score.metric == "log_loss" else p * (1 - p)
                held[score.metric] += score.low <= expected.mean() <= score.high
    assert min(held.values()) >= 52  # 95 % of 60 is 57


def test_runs_of_one_session_do_not_count_as_many() -> None:
    """Copies of every run leave the mean as it is, and what is known about it."""
    rng = np.random.default_rng(7)
    p, other = rng.random(200), rng.random(200)
    outcome = rng.random(200) < p
    once = evaluate.better_by(outcome, p, other, np.arange(200))
    row = np.repeat(np.arange(200), 20)
    many = evaluate.better_by(outcome[row], p[row], other[row], row)
    assert many.mean == pytest.approx(once.mean)
    assert many.low == pytest.approx(once.low)
    assert once.low < once.mean


@pytest.mark.parametrize("units", [4, 8, 40])
def test_a_few_sessions_seldom_look_better_by_chance(units: int) -> None:
    """Forty failures in ten sessions once chose a model that was worse on what came next."""
    rng = np.random.default_rng(12)
    unit = np.repeat(np.arange(units), 5)
    luck = rng.normal(0.0, 0.2, (1_000, units))[:, unit]
    outcome, p = np.ones(len(unit), dtype=bool), np.full(len(unit), 0.5)
    chosen = [evaluate.better_by(outcome, p, p * np.exp(-one), unit).low > 0.0 for one in luck]
    assert np.mean(chosen) < 0.06


def test_what_holds_for_one_day_is_not_taken_for_a_rule() -> None:
    """A storm delayed all flights of a day; each plane counted as evidence of its own."""
    rng = np.random.default_rng(13)
    session, day = np.arange(900), np.repeat(np.arange(3), 300)
    outcome, p = np.ones(900, dtype=bool), np.full(900, 0.5)
    other = p * np.exp(-rng.normal(0.1, 0.1, 900) - np.array([-0.1, 0.0, 0.4])[day])
    assert evaluate.better_by(outcome, p, other, session).low > 0.0
    both = evaluate.better_by(outcome, p, other, session, day)
    assert both.low == evaluate.better_by(outcome, p, other, day).low < 0.0
    assert evaluate.better_by(outcome, p, other, np.zeros(900)).low == -np.inf


def test_the_regression_says_what_the_skills_rate_says_until_runs_contradict_it() -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(14)
    columns = rng.normal(size=(2_000, 3))
    outcome = rng.random(2_000) < 1 / (1 + np.exp(-columns @ [0.5, -1.0, 0.0] - 1.0))
    theirs = LogisticRegression(C=fit.LOOSE**2, tol=1e-8, max_iter=1_000).fit(columns, outcome)
    intercept, weight = fit._logistic(columns, outcome, np.zeros(3))
    assert weight == pytest.approx(theirs.coef_[0], abs=1e-3)
    assert intercept == pytest.approx(theirs.intercept_[0], abs=1e-3)
    usual = np.array([0.0, 0.8, 0.0])
    _, few = fit._logistic(columns[:10], outcome[:10], usual)
    _, many = fit._logistic(columns, outcome, usual)
    assert few == pytest.approx(usual, abs=0.2)
    assert many[1] < -0.5


def test_few_runs_leave_the_usual_strength_of_shrinking(history: features.History) -> None:
    few, many = (fit._strength(history, np.arange(n)) for n in (20, len(history)))
    assert 10.0 < few < 40.0
    assert 1.0 < many < 200.0
    unlike = replace(history, completed=history.skill % 2 == 0)
    assert fit._strength(unlike, np.arange(len(history))) < 3.0


def test_reliability_holds_every_prediction_once() -> None:
    p = np.array([0.2] * 50 + [0.9] * 49 + [0.95])
    table = evaluate.reliability(p > 0.5, p)
    assert table.shape == (evaluate.BINS, 3)
    assert table[:, 1].sum() == 100
    assert table[:, 2].sum() == 50
    assert (np.diff(table[:, 0]) >= 0).all()


def test_a_calibrated_prediction_has_a_small_error_and_a_shifted_one_a_large() -> None:
    rng = np.random.default_rng(8)
    p = rng.uniform(0.5, 0.9, 4_000)
    outcome = rng.random(4_000) < p
    found = {
        (score.method, score.metric): score.value
        for score in evaluate.scores(
            outcome, {"right": p, "shifted": p - 0.2}, np.arange(4_000), seed=0
        )
    }
    assert found["right", "ece"] < 0.03
    assert found["shifted", "ece"] == pytest.approx(0.2, abs=0.03)


def test_a_correction_is_used_only_where_it_helps_later() -> None:
    rng = np.random.default_rng(9)
    truth = rng.uniform(0.3, 0.95, 6_000)
    outcome = rng.random(6_000) < truth
    last = slice(4_000, None)
    session = np.arange(6_000)
    odds = np.log(truth / (1 - truth))
    bold = 1 / (1 + np.exp(-3 * odds))
    found = fit.correction(outcome, bold, last, session)
    assert found is not None
    assert found[1] == pytest.approx(1 / 3, abs=0.05)
    assert fit.correction(outcome, truth, last, session) is None


def test_every_method_is_judged_on_the_same_later_runs(learned: fit.Learned) -> None:
    methods = {score.method for score in learned.scores}
    assert methods == {
        "base_rate", "shrunk_rate", "logistic", "forest", "boosting", "forest_and_logistic",
    }  # fmt: skip
    assert {score.n for score in learned.scores} == {learned.judged}
    assert 0.5 * learned.n < learned.judged < 0.65 * learned.n
    for score in learned.scores:
        assert score.low <= score.value <= score.high
    assert learned.importance is not None
    assert next(iter(learned.importance)) in {"session_failures", "session_rate", "model_rate"}


# --- the answer ---------------------------------------------------------------------------------


def test_an_answer_adds_up_and_says_why(learned: fit.Learned, history: features.History) -> None:
    for row in range(2_500, 2_600):
        counts = {name: int(column[row]) for name, column in history.counts.items()}
        answer = learned.predictor.predict(counts)
        assert answer.probability is not None
        assert answer.base is not None
        total = answer.base + sum(reason.added for reason in answer.reasons)
        assert total == pytest.approx(answer.probability, abs=1e-9)
        expected = learned.predictor.probability(history.rows(np.array([row])))[0]
        assert answer.probability == pytest.approx(expected, abs=1e-12)
        assert answer.low is not None
        assert answer.high is not None
        assert 0 <= answer.low <= answer.probability <= answer.high <= 1
        assert answer.n > 0
        assert len(answer.reasons) == len(success.FEATURES)
        moved = [abs(reason.added) for reason in answer.reasons]
        assert moved == sorted(moved, reverse=True)


def test_reasons_are_sentences_with_numbers(
    learned: fit.Learned, history: features.History
) -> None:
    row = int(np.argmax(history.counts["session_failures"]))
    counts = {name: int(column[row]) for name, column in history.counts.items()}
    texts = {reason.feature: reason.text for reason in learned.predictor.predict(counts).reasons}
    assert texts["session_failures"].startswith("failures among the session's last 3 runs: ")
    assert "lowers the chance by" in texts["session_failures"]
    assert f"(n = {counts['skill_7d_decided']:,})" in texts["skill_7d_rate"]


def test_the_shrunk_rate_answers_with_its_own_interval(history: features.History) -> None:
    predictor = Predictor("shrunk_rate", 20.0)
    counts = {name: int(column[2_900]) for name, column in history.counts.items()}
    answer = predictor.predict(counts)
    decided = counts["skill_decided"]
    rate_of_all = (counts["all_completed"] + 1) / (counts["all_decided"] + 2)
    expected = (counts["skill_completed"] + 20 * rate_of_all) / (decided + 20)
    assert answer.probability == pytest.approx(expected)
    assert answer.method == "shrunk_rate"
    assert answer.n == decided
    assert answer.low is not None
    assert answer.high is not None
    assert answer.low < expected < answer.high


def test_not_enough_data_has_no_number(history: features.History) -> None:
    counts = {name: int(column[5]) for name, column in history.counts.items()}
    answer = Predictor("not_enough_data").predict(counts)
    assert (answer.probability, answer.low, answer.method) == (None, None, "not_enough_data")


# --- storing ------------------------------------------------------------------------------------


def stored(arrays: dict[str, Any], folder: Path) -> Snapshot:
    def build(connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute(sql.load("warehouse/schema.sql"))
        for name, array in arrays.items():
            put_array(connection, name, array)

    path = publish(
        build, folder, watermark_id=0, watermark_at=END, published_at=END, code_version="test"
    )
    return Snapshot.open(path, int(path.stem))


def test_a_snapshot_gives_the_predictor_back(
    learned: fit.Learned, history: features.History, tmp_path: Path
) -> None:
    snapshot = stored(learned.predictor.arrays(), tmp_path)
    again = Predictor.load(snapshot.arrays(PREFIX))
    rows = history.rows(np.arange(500))
    assert np.array_equal(again.probability(rows), learned.predictor.probability(rows))
    counts = {name: int(column[2_999]) for name, column in history.counts.items()}
    assert again.predict(counts) == learned.predictor.predict(counts)
    snapshot.close()


@pytest.mark.parametrize("choice", ["shrunk_rate", "not_enough_data"])
def test_a_predictor_without_model_comes_back(choice: Any) -> None:
    arrays = Predictor(choice, 31.5).arrays()
    again = Predictor.load(arrays)
    assert (again.choice, again.strength, again.model) == (choice, 31.5, None)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("features", lambda a: a + 1, "trained on other features"),
        ("choice", lambda a: a + 7, "choice is"),
        ("choice", lambda a: a[:0], "choice is no 1 finite numbers"),
        ("strength", lambda a: a * 0, "strength is 0.0"),
        ("strength", lambda a: a * np.nan, "strength is no 1 finite"),
        ("share", lambda a: a + 2, "share is"),
        ("linear_weight", lambda a: a[:-1], "linear_weight is no"),
        ("linear_mean", lambda a: a * np.nan, "linear_mean is no"),
        ("calibration", lambda a: a[:1], "calibration is no 2"),
        ("reliability", lambda a: -a, "reliability is no table"),
        ("forest_left", lambda a: a * 0, "left of node 0"),
        ("forest_value", lambda a: a + 1, "value of node"),
    ],
)
def test_a_damaged_predictor_is_refused_by_name(
    learned: fit.Learned, name: str, change: Any, message: str
) -> None:
    arrays = dict(learned.predictor.arrays())
    arrays[PREFIX + name] = change(np.array(arrays[PREFIX + name]))
    with pytest.raises(SbError, match=message):
        Predictor.load(arrays)


# --- the operation ------------------------------------------------------------------------------


def test_the_operation_predicts_what_comes_later(events: Columns, learned: fit.Learned) -> None:
    cut = cut_of(events, 0.8)
    until = (datetime(1970, 1, 1) + timedelta(microseconds=cut)).isoformat()  # naive means UTC
    found = analyze("predict", events_of(events), {"train_until": until})
    start = events["invoked_at"].astype("datetime64[us]").astype(np.int64)
    assert set(found["p"]) == set(events["event_id"][start >= cut].tolist())
    assert all(0 < p < 1 for p in found["p"].values())
    assert found["model"] == "forest_and_logistic"
    assert found["metrics"]["reason"] == learned.reason
    assert found["metrics"]["scores"]["shrunk_rate"]["log_loss"]["value"] > 0


def test_predictions_do_not_move_with_outcomes_that_are_not_yet_known(events: Columns) -> None:
    """Neither with those open at a later cut nor, through the training, with those open then."""
    until = cut_of(events, 0.7)
    cut = cut_of(events, 0.85)
    delay = 3_600
    start = events["invoked_at"].astype("datetime64[us]").astype(np.int64)
    lasted = np.ma.filled(events["duration_seconds"], 0.0) + delay
    unknown = start + np.round(lasted * 1e6).astype(np.int64) >= cut
    other = np.where(events["outcome"] == "completed", "failed", "completed")
    parameters = {
        "train_until": (datetime(1970, 1, 1) + timedelta(microseconds=until)).isoformat(),
        "known_delay_seconds": delay,
    }
    flipped = events | {"outcome": np.where(unknown, other, events["outcome"])}
    first, second = (
        analyze("predict", events_of(some), parameters)["p"] for some in (events, flipped)
    )
    assert unknown.sum() > 300
    early = events["event_id"][(start >= until) & (start <= cut)].tolist()
    assert len(early) > 300
    assert [first[one] for one in early] == [second[one] for one in early]
    late = events["event_id"][start > cut + 10**10].tolist()
    assert [first[one] for one in late] != [second[one] for one in late]


def test_the_operation_needs_only_skill_time_and_outcome(events: Columns) -> None:
    """Rows are numbered from 1 where they have no id."""
    needed = ("skill_name", "invoked_at", "outcome")
    few = {name: events[name] for name in needed}
    until = (datetime(1970, 1, 1) + timedelta(microseconds=cut_of(events, 0.9))).isoformat()
    found = analyze("predict", events_of(few), {"train_until": until})
    assert set(found["p"]) <= set(map(str, range(1, PLAN.n + 1)))
    assert len(found["p"]) == pytest.approx(0.1 * PLAN.n, abs=2)
    for name in needed:
        rest = {key: column for key, column in few.items() if key != name}
        with pytest.raises(SbError, match=f"no column '{name}'"):
            analyze("predict", events_of(rest), {"train_until": until})


def test_the_operation_refuses_below_the_floor(events: Columns) -> None:
    few = events_of({name: column[:50] for name, column in events.items() if name != "event_id"})
    found = analyze("predict", few, {"train_until": END.isoformat()})
    assert (found["p"], found["model"]) == ({}, "not_enough_data")
    assert "not enough data" in found["metrics"]["reason"]
    with pytest.raises(SbError, match="known_delay_seconds = -1 is no number of seconds"):
        analyze("predict", few, {"train_until": "2026-11-01", "known_delay_seconds": -1})


def test_two_events_of_one_id_are_refused(events: Columns) -> None:
    """One of them would silently be missing from the answer."""
    ids = np.full(PLAN.n, "same", dtype=object)
    until = {"train_until": "2026-11-16"}
    with pytest.raises(SbError, match="event_id is not unique"):
        analyze("predict", events_of(events | {"event_id": ids}), until)
