"""What is running now: the skills of the last hours, from the live side."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from sb_serving import times
from sb_serving.answers.arguments import Kind, checked_hours, checked_kind, checked_limit
from sb_serving.frame import Frame, SkillWindow, ranked
from sb_serving.models import RealTimeMetrics, SkillMetrics, Source
from sb_serving.stats.intervals import wilson

if TYPE_CHECKING:
    from sb_serving.live import Live

EXACT_HOURS = 48.0
"""Longest window whose percentiles and distinct sessions are counted from single rows."""
FRAME_HOURS = 1.0
"""The window that every frame holds ready."""

_FRAME_SOURCE = ("sql/live/window_rows.sql", "sql/live/new_rows.sql", "frame.windows_of_rows")
_SUM_SOURCE = ("sql/live/hours.sql", "sql/live/part_hour.sql", "frame.windows_of_sums")
_DETAIL_SOURCE = (*_SUM_SOURCE, "sql/live/window_details.sql")
_LOG_TABLES = ("skill_invocation", "skill_user_interactions")


class _Window(NamedTuple):
    """The skills of one window, with what makes the numbers traceable."""

    start: str
    end: str
    shown: Sequence[SkillWindow]
    skills: int
    invocations: int
    hidden_skills: int
    hidden_invocations: int
    last_event_id: int
    last_event_at: str | None
    tables: tuple[str, ...]
    made_by: tuple[str, ...]


def real_time_metrics(
    live: Live, limit: int = 10, time_window_hours: float = 1.0, kind: Kind | None = None
) -> RealTimeMetrics:
    """The skills that were used most lately.

    The window ends at the newest frame. Up to 48 hours everything is counted from single rows or
    from sums that equal them; beyond, percentiles and distinct sessions, which cannot be added up,
    are null.

    Args:
        live: The live side; its newest frame answers the default window.
        limit: Most skills to list, 1 to 200.
        time_window_hours: Hours, above 0, at most ten years.
        kind: One kind, `all`, or None for all but `tool` (else every list is Read, Edit, Bash).

    Raises:
        SbError: A value is out of range, or the database cannot be read.
    """
    limit = checked_limit(limit)
    hours = checked_hours("time_window_hours", time_window_hours)
    checked_kind(kind)
    frame = live.latest()
    window = (
        _from_frame(frame, limit, kind)
        if hours == FRAME_HOURS
        else _from_log(live, frame, limit, hours, kind)
    )
    cut = window.skills - len(window.shown)
    return RealTimeMetrics(
        timestamp=frame.at,
        message=_message(window, hours, kind, frame.stale_reason),
        top_skills=tuple(map(skill_metrics, window.shown)),
        time_window_hours=hours,
        window_start=window.start,
        window_end=window.end,
        kind=kind or "default",
        skills=window.skills,
        invocations=window.invocations,
        hidden_skills=window.hidden_skills,
        hidden_invocations=window.hidden_invocations,
        truncated=cut > 0,
        omitted=cut,
        active_sessions=frame.active_sessions,
        last_event_id=window.last_event_id,
        last_event_at=window.last_event_at,
        snapshot=frame.snapshot_number,
        stale_reason=frame.stale_reason,
        source=Source(tables=window.tables, snapshot=frame.snapshot_number, made_by=window.made_by),
    )


def skill_metrics(window: SkillWindow) -> SkillMetrics:
    """One skill's window as its answer: with rate, interval and n."""
    decided = window.completed + window.failed
    low, high = wilson(window.completed, decided) if decided else (None, None)
    return SkillMetrics(
        skill_name=window.skill_name,
        kind=window.kind,
        invocation_count=window.n,
        completed_count=window.completed,
        failed_count=window.failed,
        rejected_count=window.rejected,
        cancelled_count=window.cancelled,
        interrupted_count=window.interrupted,
        no_result_count=window.no_result,
        completion_rate=window.completion_rate,
        completion_rate_n=decided,
        completion_rate_low=low,
        completion_rate_high=high,
        avg_duration=window.duration_avg,
        duration_n=window.duration_n,
        duration_p50=window.duration_p50,
        duration_p95=window.duration_p95,
        unique_sessions=window.unique_sessions,
        last_invocation_at=window.last_invoked_at,
    )


def of_kind(windows: Sequence[SkillWindow], kind: Kind | None) -> list[SkillWindow]:
    """Those of one kind; None leaves out `tool`, `all` nothing."""
    if kind == "all":
        return list(windows)
    if kind is None:
        return [window for window in windows if window.kind != "tool"]
    return [window for window in windows if window.kind == kind]


def _from_frame(frame: Frame, limit: int, kind: Kind | None) -> _Window:
    end = times.from_text(frame.at)
    return _chosen(
        frame.hour,
        of_kind(frame.hour, kind)[:limit],
        kind,
        (end - timedelta(hours=FRAME_HOURS), end),
        (frame.last_event_id, frame.last_event_at),
        _LOG_TABLES,
        _FRAME_SOURCE,
    )


def _from_log(live: Live, frame: Frame, limit: int, hours: float, kind: Kind | None) -> _Window:
    end = times.from_text(frame.at)
    start = end - timedelta(hours=hours)
    with live.reading() as reading:
        state = reading.state()
        windows = reading.windows(start, end)
        shown: Sequence[SkillWindow] = of_kind(windows, kind)[:limit]
        if hours <= EXACT_HOURS:
            shown = ranked(reading.details(shown, start, end))
    return _chosen(
        windows,
        shown,
        kind,
        (start, end),
        (state.last_id, state.last_at),
        (*_LOG_TABLES, "skill_hour", "skill_metrics_cache"),
        _DETAIL_SOURCE if hours <= EXACT_HOURS else _SUM_SOURCE,
    )


def _chosen(
    windows: Sequence[SkillWindow],
    shown: Sequence[SkillWindow],
    kind: Kind | None,
    span: tuple[datetime, datetime],
    last_event: tuple[int, str | None],
    tables: tuple[str, ...],
    made_by: tuple[str, ...],
) -> _Window:
    asked = of_kind(windows, kind)
    invocations = sum(window.n for window in asked)
    return _Window(
        start=times.to_utc_text(span[0]),
        end=times.to_utc_text(span[1]),
        shown=shown,
        skills=len(asked),
        invocations=invocations,
        hidden_skills=len(windows) - len(asked),
        hidden_invocations=sum(window.n for window in windows) - invocations,
        last_event_id=last_event[0],
        last_event_at=last_event[1],
        tables=tables,
        made_by=made_by,
    )


def _message(window: _Window, hours: float, kind: Kind | None, stale_reason: str | None) -> str:
    span = "hour" if hours == 1 else f"{hours:g} hours"
    what = "skills" if kind in (None, "all") else f"skills of kind {kind}"
    if window.shown:
        first = window.shown[0]
        text = (
            f"{window.skills:,} {what} with {window.invocations:,} invocations in the last {span};"
            f" most used: {first.skill_name} ({first.n:,})."
        )
    else:
        text = f"No invocation of {what} in the last {span}."
    if window.hidden_invocations and kind is None:
        text += (
            f" Left out: {window.hidden_skills:,} of kind tool with"
            f" {window.hidden_invocations:,} invocations; kind='all' shows them."
        )
    if hours > EXACT_HOURS:
        text += f" Beyond {EXACT_HOURS:g} hours percentiles and sessions are not counted."
    if stale_reason is not None:
        text += f" These numbers are of {window.end}: {stale_reason}"
    return text
