"""The first screen, from records whose answer is known."""

from __future__ import annotations

from datetime import UTC, datetime

from sb_serving import demo
from sb_serving.overview import overview
from tests.builders import invocation


def test_nothing_is_an_answer() -> None:
    found = overview([])
    assert (found.sessions, found.invocations, found.first_at) == (0, 0, None)
    assert found.top == found.failing == found.waiting == found.never_used == []


def test_counts_ranks_and_never_used() -> None:
    rows = [invocation(n, skill_name="Bash", kind="tool") for n in range(30)]
    rows += [invocation(100 + n, session_id="other") for n in range(3)]
    found = overview(rows, listed=["commit", "deploy", "review"])
    assert (found.sessions, found.invocations, found.tool_calls, found.skill_runs) == (2, 33, 30, 3)
    assert [(use.skill_name, use.n) for use in found.top] == [("commit", 3)]
    assert (found.listed, found.never_used) == (3, ["deploy", "review"])


def test_rejections_are_not_failures() -> None:
    rows = [invocation(n, outcome="rejected") for n in range(50)]
    assert overview(rows).failing == []


def test_few_runs_are_not_ranked() -> None:
    """2 of 2 failed would top every list of raw rates."""
    rows = [invocation(n, outcome="failed", error_type="x") for n in range(2)]
    rows += [
        invocation(10 + n, skill_name="review", outcome="failed" if n < 5 else "completed")
        for n in range(20)
    ]
    assert [failing.skill_name for failing in overview(rows).failing] == ["review"]


def test_the_planted_failure_comes_first_and_is_dated() -> None:
    plan = demo.DemoPlan(n=20_000, seed=3, end=datetime(2026, 11, 20, tzinfo=UTC), signal=False)
    truth = demo.truth(plan)
    assert truth.day is not None
    failing = overview(demo.invocations(plan)).failing[0]
    assert failing.skill_name == truth.skill_name
    assert failing.since is not None
    planted = datetime.fromisoformat(str(truth.day)).date()
    assert abs((datetime.fromisoformat(failing.since).date() - planted).days) <= 1
