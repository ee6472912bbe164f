"""What was known before a run: the same for training, for the warehouse and for a live call."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sb_pipelines.training import features
from sb_serving import known, predict, sql, times
from sb_serving.demo import DemoPlan, invocations
from sb_serving.errors import SbError
from sb_serving.events import Invocation
from sb_serving.snapshot import Snapshot
from sb_serving.stats import success
from sb_serving.store import Store
from tests.builders import SESSION_BUDDY_INSERT, new_store
from tests.known_builder import snapshot_of, warehouse_of
from tests.runs import Columns, history_of

END = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR = 3_600_000_000


# --- against counting one by one ----------------------------------------------------------------


def counted(runs: list[Columns], delay: int) -> Columns:
    """The columns of every run, by looking at every other run: slow, and plain."""
    found: dict[str, list[int]] = defaultdict(list)
    for run in runs:
        at = run["at"]
        known = [other for other in runs if other["at"] + other["lasts"] + delay < at]
        session = sorted(
            (o for o in known if o["session_id"] and o["session_id"] == run["session_id"]),
            key=lambda o: (o["at"] + o["lasts"], o["row"]),
        )
        before = session[-1]["skill_name"] if session else None

        def since(span: int, known: list[Columns] = known, at: int = at) -> list[Columns]:
            return [o for o in known if o["at"] + o["lasts"] + delay >= at - span]

        week = at // HOUR - 168
        same = {name: [o for o in known if o[name] == run[name]] for name in run}
        scopes = {
            "all": known,
            "skill": same["skill_name"],
            "user": same["user_id"] if run["user_id"] else [],
            "user_skill": [o for o in same["user_id"] if o["skill_name"] == run["skill_name"]]
            if run["user_id"]
            else [],
            "version": [
                o
                for o in same["skill_name"]
                if (o["agent"], o["agent_version"]) == (run["agent"], run["agent_version"])
            ],
            "phase": same["workflow_phase"],
            "agent": same["agent"],
            "model": same["model"],
            "previous": [o for o in known if o["skill_name"] == before],
            "skill_24h": [o for o in since(24 * HOUR) if o["skill_name"] == run["skill_name"]],
            "skill_7d": [o for o in same["skill_name"] if (o["at"] + delay) // HOUR >= week],
            "all_3h": since(3 * HOUR),
            "phase_3h": [
                o for o in since(3 * HOUR) if o["workflow_phase"] == run["workflow_phase"]
            ],
            "session": session,
        }
        for name, some in scopes.items():
            outcomes = [o["outcome"] for o in some]
            found[f"{name}_n"].append(len(some))
            found[f"{name}_completed"].append(outcomes.count("completed"))
            found[f"{name}_decided"].append(outcomes.count("completed") + outcomes.count("failed"))
        last = [o["outcome"] for o in session]
        found["asked_at"].append(at)
        found["session_failures"].append(last[-3:].count("failed"))
        found["session_last_failed"].append(int(last[-1:] == ["failed"]))
        found["session_begun_at"].append(min((o["at"] for o in session), default=at))
    return dict(found)


def name(*values: str) -> st.SearchStrategy[str]:
    return st.sampled_from(values)


RUN = st.fixed_dictionaries(
    {
        # Few moments, so that many coincide, and some exactly a window apart.
        "at": st.sampled_from([0, 1, HOUR, 3 * HOUR, 24 * HOUR, 168 * HOUR, 169 * HOUR])
        | st.integers(0, 200 * HOUR),
        "lasts": st.sampled_from([0, 1, HOUR, 3 * HOUR, 24 * HOUR, 200 * HOUR]),
        "skill_name": name("a", "b"),
        "user_id": name("", "u", "v"),
        "session_id": name("", "s", "t"),
        "workflow_phase": name("", "setup"),
        "agent": name("", "x"),
        "agent_version": name("", "1", "2"),
        "model": name("", "m"),
        "outcome": name("completed", "failed", "rejected"),
    }
)


@settings(max_examples=6, deadline=None)
@given(st.lists(RUN, min_size=1, max_size=60), st.sampled_from([0, 1, HOUR, 400 * HOUR]))
def test_counts_equal_those_of_counting_one_by_one(runs: list[Columns], delay: int) -> None:
    for row, run in enumerate(runs):
        run["row"] = row
    given_columns: Columns = {
        key: np.array([run[key] for run in runs], dtype=object)
        for key in runs[0]
        if key not in ("at", "lasts", "row")
    }
    given_columns["invoked_at"] = np.array([r["at"] for r in runs], dtype="datetime64[us]")
    given_columns["duration_seconds"] = np.array([run["lasts"] / 1e6 for run in runs])
    history = history_of(given_columns, timedelta(microseconds=delay))
    for column, expected in counted(runs, delay).items():
        assert history.counts[column].tolist() == expected, column


# --- the past, the warehouse and a live call ----------------------------------------------------


def log_of(count: int) -> list[Invocation]:
    """Demo runs in the order in which they became known; every sixth as other tools insert them."""
    plan = DemoPlan(n=count, seed=8, end=END, days=12, users=5, skills=24)
    runs = sorted(invocations(plan), key=lambda run: (run.ended_at, run.invoked_at))
    return [
        replace(
            run,
            outcome="completed" if run.outcome == "completed" else "failed",
            error_type=None if run.outcome == "completed" else "exit_1",
            user_id="",
            agent=None,
            agent_version=None,
            model=None,
            workflow_phase=None,
        )
        if row % 6 == 5
        else run
        for row, run in enumerate(runs)
    ]


def foreign(row: int) -> bool:
    return row % 6 == 5


def columns_of(runs: list[Invocation]) -> Columns:
    names = ("skill_name", "outcome", "session_id", "user_id", "workflow_phase", "agent")
    columns: Columns = {
        key: np.array([getattr(run, key) for run in runs], dtype=object)
        for key in (*names, "agent_version", "model")
    }
    starts = [times.from_text(run.invoked_at).replace(tzinfo=None) for run in runs]
    columns["invoked_at"] = np.array(starts, dtype="datetime64[us]")
    columns["duration_seconds"] = np.array([run.duration_seconds for run in runs], dtype=np.float64)
    return columns


def insert(store: Store, runs: list[Invocation], begin: int, end: int) -> None:
    for row in range(begin, end):
        run = runs[row]
        if not foreign(row):
            store.record(run)
            continue
        store.connection.execute(
            SESSION_BUDDY_INSERT,
            (
                run.skill_name,
                run.invoked_at,
                run.session_id,
                run.outcome == "completed",
                run.error_type,
                run.duration_seconds,
                None,
            ),
        )


@dataclass
class Replayed:
    """One moment: what training counted for it, and what a live call counts."""

    row: int
    expected: dict[str, int]
    found: dict[str, int]


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> list[Replayed]:
    """Runs asked about when they started, with a store that holds what had ended by then."""
    folder = tmp_path_factory.mktemp("replay")
    runs = log_of(900)
    columns = columns_of(runs)
    history = history_of(columns)
    asked = history.asked_at
    moments = [row for row in np.argsort(asked, kind="stable").tolist() if row % 3 == 2][20:]
    found = []
    snapshot: Snapshot | None = None
    carried = known.Known()
    with new_store(folder) as store:
        inserted = 0
        for number, row in enumerate(moments):
            ended = int(np.searchsorted(history.known_at, asked[row], side="left"))
            insert(store, runs, inserted, ended)
            inserted = ended
            if number % 50 == 0:  # the snapshot stays behind until the next one
                if snapshot:
                    snapshot.close()
                snapshot = snapshot_of(store, folder / "snapshots")
                totals = known.Totals.load(snapshot)
            run = runs[row]
            question = predict.Question(
                skill_name=run.skill_name,
                at=times.from_text(run.invoked_at),
                session_id=run.session_id,
                user_id=run.user_id,
                workflow_phase=run.workflow_phase or "",
                agent=run.agent or "",
                agent_version=run.agent_version or "",
                model=run.model or "",
            )
            live = carried.counts(store.connection, totals, question)
            expected = {key: int(column[row]) for key, column in history.counts.items()}
            found.append(Replayed(row, expected, live))
    if snapshot:
        snapshot.close()
    return found


def test_a_live_call_counts_what_training_counts(replayed: list[Replayed]) -> None:
    assert len(replayed) >= 200
    differing = {
        (one.row, key): (one.found[key], expected)
        for one in replayed
        for key, expected in one.expected.items()
        if one.found[key] != expected
    }
    assert differing == {}
    assert all(one.found.keys() == one.expected.keys() for one in replayed)


def test_the_replay_meets_every_kind_of_count(replayed: list[Replayed]) -> None:
    """Equality of zeros would prove nothing."""
    for key in replayed[0].expected:
        assert any(one.expected[key] > 0 for one in replayed), key
    assert any(foreign(one.row) for one in replayed)


def test_the_warehouse_gives_the_same_history(tmp_path: Path) -> None:
    runs = log_of(300)
    with new_store(tmp_path) as store, duckdb.connect() as connection:
        insert(store, runs, 0, len(runs))
        warehouse_of(store, connection)
        found = features.from_warehouse(connection)
    expected = history_of(columns_of(runs))
    for key, column in expected.counts.items():
        assert np.array_equal(found.counts[key], column), key
    assert np.array_equal(found.known_at, expected.known_at)
    assert np.array_equal(found.completed, expected.completed)


def test_the_session_of_a_run_is_not_found_by_looking_at_all_of_them(tmp_path: Path) -> None:
    """A million runs took eight minutes, as the plan compared each with each."""
    runs = log_of(300)
    with new_store(tmp_path) as store, duckdb.connect() as connection:
        insert(store, runs, 0, len(runs))
        warehouse_of(store, connection)
        features.from_warehouse(connection)
        asked = sql.load("training/asked.sql")
        plan = str(connection.execute(f"explain {asked}", {"every": 1}).fetchall())
    assert "Asof Join" in plan
    assert "Nested Loop" not in plan


# --- leaks --------------------------------------------------------------------------------------


def flipped(columns: Columns, which: Any) -> Columns:
    """The same runs, with other outcomes where `which`."""
    other = {"completed": "failed", "failed": "completed"}
    outcome = columns["outcome"].copy()
    outcome[which] = [other.get(one, "completed") for one in outcome[which]]
    return columns | {"outcome": outcome}


@pytest.mark.parametrize("delay", [timedelta(0), timedelta(hours=6)])
def test_outcomes_not_yet_known_move_no_earlier_feature(delay: timedelta) -> None:
    columns = columns_of(log_of(800))
    history = history_of(columns, delay)
    rows = success.features(history.counts, 20.0)
    asked = history.asked_at
    for cut in np.quantile(asked, [0.2, 0.7]).astype(np.int64).tolist():
        unknown = history.known_at >= cut
        again = history_of(flipped(columns, unknown), delay)
        other = success.features(again.counts, 20.0)
        assert np.array_equal(rows[asked <= cut], other[asked <= cut])
        assert not np.array_equal(rows[asked > cut], other[asked > cut])


# --- features -----------------------------------------------------------------------------------


def one_run(**counts: int) -> Columns:
    """The counts of a first run, with some of them changed."""
    columns: Columns = {
        f"{scope}_{what}": np.zeros(1, dtype=np.int64)
        for scope in success.COUNTS
        for what in ("n", "completed", "decided")
    }
    columns |= {key: np.zeros(1, dtype=np.int64) for key in success.SESSION}
    columns["asked_at"] = np.array([1_784_635_200_000_000])  # Tuesday 2026-07-21 12:00
    columns["session_begun_at"] = columns["asked_at"]
    return columns | {key: np.array([value]) for key, value in counts.items()}


def named(columns: Columns) -> dict[str, float]:
    row = success.features(columns, 20.0)[0]
    return dict(zip([f.name for f in success.FEATURES], row.tolist(), strict=True))


def test_the_first_run_of_all_has_features() -> None:
    found = named(one_run())
    assert (found["hour"], found["weekday"]) == (12, 1)
    assert {value for key, value in found.items() if key.endswith("_rate")} == {0.5}
    assert found["session_minutes"] == found["familiarity"] == 0


def test_an_unknown_phase_is_not_the_first_phase() -> None:
    """None and the first phase once shared the code 0."""
    common = {"all_completed": 90, "all_decided": 100}
    unknown = named(one_run(**common))
    setup = named(one_run(**common, phase_completed=10, phase_decided=40, phase_n=40))
    assert setup["phase_rate"] < 0.6 < unknown["phase_rate"]


def test_a_version_that_breaks_a_skill_is_noticed_soon_and_scatter_is_not() -> None:
    usual = {"all_completed": 900, "all_decided": 1_000, "skill_completed": 470}
    usual["skill_decided"] = 500
    broken = named(one_run(**usual, version_completed=3, version_decided=12))["skill_rate"]
    unlucky = named(one_run(**usual, version_completed=10, version_decided=12))["skill_rate"]
    assert broken < 0.4
    assert unlucky > 0.85


def test_rates_stay_inside_0_and_1_and_the_basis_is_finite() -> None:
    rng = np.random.default_rng(1)
    columns = one_run()
    for scope in (*success.COUNTS, "session"):
        decided = rng.integers(0, 10**6, 500) * (rng.random(500) < 0.7)
        columns[f"{scope}_decided"] = decided
        columns[f"{scope}_n"] = decided
        columns[f"{scope}_completed"] = decided * rng.integers(0, 2, 500)
    columns = {key: np.broadcast_to(value, 500) for key, value in columns.items()}
    rows = success.features(columns, 3.0)
    rates = [i for i, f in enumerate(success.FEATURES) if f.form == "rate"]
    assert np.isfinite(rows).all()
    assert (rows[:, rates] >= 0).all()
    assert (rows[:, rates] <= 1).all()
    seen, owner = success.basis(rows)
    assert np.isfinite(seen).all()
    assert set(owner.tolist()) == set(range(len(success.FEATURES)))


def test_missing_values_of_every_form_are_missing() -> None:
    columns: Columns = {
        "skill_name": np.array(["a"] * 4),
        "outcome": np.array(["completed"] * 4),
        "invoked_at": np.arange(4).astype("datetime64[D]").astype("datetime64[us]"),
        "session_id": np.array([None, "s", "s", "s"], dtype=object),
        "user_id": np.array(["u", None, None, ""], dtype=object),
        "duration_seconds": np.array([np.nan, 1.0, np.nan, 2.0]),
    }
    history = history_of(columns)
    assert history.counts["session_n"].tolist() == [0, 0, 1, 2]
    assert history.counts["user_n"].tolist() == [0, 0, 0, 0]
    assert (history.known_at - history.asked_at).tolist() == [0, 1_000_000, 0, 2_000_000]


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"skill_name": " "}, "skill_name is empty"), ({"at": datetime(2026, 1, 1)}, "no time zone")],
)
def test_questions_that_mean_nothing_are_refused(fields: Columns, message: str) -> None:
    asked: Columns = {"skill_name": "a", "at": END}
    with pytest.raises(SbError, match=message):
        predict.Question(**(asked | fields))
