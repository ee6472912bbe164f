"""The answers: right numbers, one meaning in every window, refusals that name the value."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sb_serving import sql
from sb_serving.answers import arguments, realtime
from sb_serving.answers.realtime import real_time_metrics
from sb_serving.errors import SbError
from sb_serving.events import KINDS
from sb_serving.frame import SkillWindow
from sb_serving.live import Live
from sb_serving.models import RealTimeMetrics, SkillMetrics
from sb_serving.snapshot import SnapshotHolder
from tests.live_builder import KIND_OF, NOW, At, Event, World, counted

MINUTE = timedelta(minutes=1)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Some 200 events of three days; nobody changes it."""
    world = World.make(tmp_path_factory.mktemp("world"))
    outcomes = ["completed", "completed", "failed", "rejected", "cancelled", "interrupted"]
    world.add(
        *[
            Event(
                at=NOW - 23 * i * MINUTE,
                skill=sorted(KIND_OF)[i % 4],
                outcome=outcomes[i % 6],
                duration=None if i % 5 == 0 else i / 10,
                session=f"session-{i // 7}",
            )
            for i in range(200)
        ],
        Event(at=NOW - 3 * MINUTE, companion=False, outcome="no_result", duration=None),
        Event(at=NOW + MINUTE),
    )
    world.live.tick(NOW)
    yield world
    world.close()


def expected(world: World, hours: float) -> dict[str, SkillWindow]:
    return counted(world.within(NOW - timedelta(hours=hours), NOW))


def test_the_answer_has_the_predecessors_fields_and_more() -> None:
    assert {"success", "timestamp", "message", "top_skills"} < set(RealTimeMetrics.model_fields)
    assert {
        "skill_name",
        "invocation_count",
        "completed_count",
        "avg_duration",
        "last_invocation_at",
    } < set(SkillMetrics.model_fields)


@pytest.mark.parametrize("hours", [1, 1.0, 0.5, 0.999999, 2, 24.0, 47.3, 48])
def test_windows_up_to_48_hours_are_exact(world: World, hours: float) -> None:
    """The default window comes from the frame, the others from the log; one meaning."""
    answer = real_time_metrics(world.live, time_window_hours=hours, kind="all")
    should = expected(world, hours)
    assert {skill.skill_name for skill in answer.top_skills} == set(should)
    for skill in answer.top_skills:
        window = should[skill.skill_name]
        assert skill.invocation_count == window.n
        assert skill.completed_count == window.completed
        assert skill.failed_count == window.failed
        assert skill.rejected_count == window.rejected
        assert skill.cancelled_count == window.cancelled
        assert skill.interrupted_count == window.interrupted
        assert skill.no_result_count == window.no_result
        assert skill.unique_sessions == window.unique_sessions
        assert skill.last_invocation_at == window.last_invoked_at
        assert skill.duration_n == window.duration_n
        assert skill.avg_duration == pytest.approx(window.duration_avg)
        assert skill.duration_p50 == pytest.approx(window.duration_p50)
        assert skill.duration_p95 == pytest.approx(window.duration_p95)
    assert answer.invocations == sum(window.n for window in should.values())
    assert answer.window_end == answer.timestamp == "2026-11-22T12:20:00.000000+00:00"
    assert answer.time_window_hours == hours


def test_a_window_of_days_has_exact_sums_and_says_what_it_lacks(world: World) -> None:
    answer = real_time_metrics(world.live, time_window_hours=72, kind="all")
    should = expected(world, 72)
    for skill in answer.top_skills:
        window = should[skill.skill_name]
        assert (skill.invocation_count, skill.completed_count) == (window.n, window.completed)
        assert skill.avg_duration == pytest.approx(window.duration_avg)
        assert skill.last_invocation_at == window.last_invoked_at
        assert (skill.duration_p50, skill.duration_p95, skill.unique_sessions) == (None, None, None)
    assert "Beyond 48 hours percentiles and sessions are not counted." in answer.message
    assert answer.window_start == "2026-11-19T12:20:00.000000+00:00"


def test_ten_years_hold_everything_but_the_future(world: World) -> None:
    answer = real_time_metrics(world.live, time_window_hours=arguments.MAX_HOURS, kind="all")
    assert answer.invocations == len(world.events) - 1


def test_the_frame_and_the_log_give_the_same_answer(world: World) -> None:
    """One hour from the frame, one hour and nothing more from the log."""
    ready = real_time_metrics(world.live, kind="all").model_dump()
    read = real_time_metrics(world.live, time_window_hours=1 + 1e-12, kind="all").model_dump()
    for name in ("source", "time_window_hours", "message"):
        del ready[name], read[name]
    for mine, its in zip(ready.pop("top_skills"), read.pop("top_skills"), strict=True):
        assert mine.pop("avg_duration") == pytest.approx(its.pop("avg_duration"))
        assert mine == its
    assert ready == read


def test_rates_come_with_n_and_wilson_interval(world: World) -> None:
    """8 of 10: the interval of the textbook. Nothing decided: no rate, no interval."""
    ten = SkillWindow("a", "skill", 14, 8, 2, 4, 0, 0, 0, 0, 0.0)
    answer = realtime.skill_metrics(ten)
    assert (answer.completion_rate, answer.completion_rate_n) == (0.8, 10)
    assert answer.completion_rate_low == pytest.approx(0.4901624715)
    assert answer.completion_rate_high == pytest.approx(0.9433178485)
    none = realtime.skill_metrics(SkillWindow("a", "skill", 4, 0, 0, 4, 0, 0, 0, 0, 0.0))
    assert (none.completion_rate, none.completion_rate_low, none.completion_rate_high) == (
        None,
        None,
        None,
    )
    assert none.avg_duration is None


def test_by_default_built_in_tools_are_left_out_and_counted(world: World) -> None:
    """Else every list is Read, Edit, Bash."""
    answer = real_time_metrics(world.live, time_window_hours=24)
    should = expected(world, 24)
    tools = [window for window in should.values() if window.kind == "tool"]
    assert {skill.kind for skill in answer.top_skills} == {"skill", "mcp_tool"}
    assert (answer.hidden_skills, answer.hidden_invocations) == (len(tools), tools[0].n)
    assert (
        f"Left out: 1 of kind tool with {tools[0].n} invocations; kind='all' shows them."
        in answer.message
    )
    assert answer.kind == "default"
    shown = real_time_metrics(world.live, time_window_hours=24, kind="all")
    assert (shown.hidden_skills, shown.hidden_invocations) == (0, 0)
    assert "Left out" not in shown.message


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_may_be_asked_for(world: World, kind: Any) -> None:
    answer = real_time_metrics(world.live, time_window_hours=24, kind=kind)
    should = {name for name, window in expected(world, 24).items() if window.kind == kind}
    assert {skill.skill_name for skill in answer.top_skills} == should
    assert answer.kind == kind
    assert answer.skills == len(should)
    if not should:
        assert answer.message.startswith(f"No invocation of skills of kind {kind}")


def test_what_limit_cuts_off_is_counted(world: World) -> None:
    for hours in (1.0, 30.0):
        whole = real_time_metrics(world.live, time_window_hours=hours, kind="all")
        cut = real_time_metrics(world.live, limit=1, time_window_hours=hours, kind="all")
        assert cut.top_skills == whole.top_skills[:1]
        assert (cut.truncated, cut.omitted, cut.skills) == (True, whole.skills - 1, whole.skills)
        assert cut.invocations == whole.invocations
        assert (whole.truncated, whole.omitted) == (False, 0)


@pytest.mark.parametrize("limit", [0, -1, 201, 10**18, 10**19, "5", "x", None, 2.5, True])
def test_a_limit_out_of_range_is_refused_by_name(world: World, limit: Any) -> None:
    with pytest.raises(SbError) as refusal:
        real_time_metrics(world.live, limit=limit)
    assert str(refusal.value) == f"limit = {limit!r}. Expected a whole number from 1 to 200."


@pytest.mark.parametrize(
    "hours", [0, -1.0, math.nan, math.inf, -math.inf, 87_661.0, 1e9, 10**400, "1", None, True]
)
def test_a_window_out_of_range_is_refused_by_name(world: World, hours: Any) -> None:
    """A billion hours gave the predecessor no rows instead of all."""
    with pytest.raises(SbError) as refusal:
        real_time_metrics(world.live, time_window_hours=hours)
    assert f"time_window_hours = {hours!r}. Expected hours above 0" in str(refusal.value)


@pytest.mark.parametrize("kind", ["tools", "", "ALL", 3, "x'; drop table skill_hour; --"])
def test_an_unknown_kind_is_refused_by_name(world: World, kind: Any) -> None:
    with pytest.raises(SbError, match=r"Expected one of skill, tool, .*, all") as refusal:
        real_time_metrics(world.live, kind=kind)
    assert repr(kind) in str(refusal.value)


def test_a_window_of_almost_nothing_is_empty(world: World) -> None:
    answer = real_time_metrics(world.live, time_window_hours=1e-12, kind="all")
    assert answer.top_skills == ()
    assert answer.window_start == answer.window_end
    assert answer.message == "No invocation of skills in the last 1e-12 hours."


@pytest.mark.parametrize("hours", [1.0, 5.0, 100.0])
def test_an_answer_is_plain_json_and_can_be_traced(world: World, hours: float) -> None:
    answer = real_time_metrics(world.live, time_window_hours=hours, kind="all")
    plain = json.loads(json.dumps(answer.model_dump(mode="json"), allow_nan=False))
    assert RealTimeMetrics.model_validate_json(json.dumps(plain)) == answer
    assert plain["last_event_id"] == world.last_id()
    for name in answer.source.made_by:
        if name.endswith(".sql"):
            assert (sql.root().parent / name).is_file()
        else:
            module, function = name.rsplit(".", 1)
            assert hasattr(__import__(f"sb_serving.{module}", fromlist=[function]), function)
    tables = {row[0] for row in world.store.connection.execute("select name from sqlite_master")}
    assert set(answer.source.tables) <= tables
    assert answer.source.snapshot is answer.snapshot is None


def test_an_empty_log_is_an_empty_answer(tmp_path: Path) -> None:
    """Also without a tick before: the answer makes the first frame itself."""
    world = World.make(tmp_path)
    for hours in (1.0, 3.0, 100.0):
        answer = real_time_metrics(world.live, time_window_hours=hours)
        assert answer.success
        assert answer.top_skills == ()
        assert answer.stale_reason is None
        assert answer.last_event_id == 0
    world.close()


def test_a_stale_answer_says_so(tmp_path: Path) -> None:
    """The default window is still answered; one that must be read is an error."""
    world = World.make(tmp_path)
    world.add(Event())
    world.live.tick(NOW)
    world.live.path.rename(tmp_path / "away.db")
    world.live.tick(NOW + MINUTE)
    answer = real_time_metrics(world.live)
    assert answer.top_skills[0].invocation_count == 1
    assert answer.timestamp == "2026-11-22T12:20:00.000000+00:00"
    assert answer.stale_reason is not None
    assert answer.stale_reason in answer.message
    with pytest.raises(SbError, match="no database"):
        real_time_metrics(world.live, time_window_hours=2)
    world.close()


def test_without_a_database_the_answer_is_an_error(tmp_path: Path) -> None:
    """The predecessor answered success with an empty list."""
    live = Live(At(tmp_path / "none.db"), SnapshotHolder(tmp_path))
    with pytest.raises(SbError, match="no database"):
        real_time_metrics(live)


def test_the_answer_names_its_snapshot(tmp_path: Path) -> None:
    world = World.make(tmp_path)
    world.add(Event())
    world.publish()
    world.live.tick(NOW)
    answer = real_time_metrics(world.live)
    assert answer.snapshot == answer.source.snapshot == 1
    world.close()


def test_kinds_are_those_of_the_records() -> None:
    from typing import get_args

    assert get_args(arguments.Kind) == (*KINDS, "all")
