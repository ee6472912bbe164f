"""The types of the answers: what a caller over MCP, HTTP or Python gets, field by field.

Belongs here: names, units and meaning. Numbers are made in `answers/`. Every model serialises to
plain JSON: no NaN, no infinity; what is not known is null.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Answer(BaseModel):
    """What every answer says about itself.

    Attributes:
        success: Always true; what goes wrong is an error with a reason instead.
        timestamp: The moment that the numbers belong to, UTC.
        message: The answer in a sentence, with what was left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")

    success: bool = Field(default=True, description="Always true; a problem is an error instead.")
    timestamp: str = Field(description="Moment that the numbers belong to, UTC.")
    message: str = Field(description="The answer in a sentence, with what was left out.")


class Source(BaseModel):
    """Where numbers come from, so that they can be traced and counted again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tables: tuple[str, ...] = Field(description="Tables that were read.")
    snapshot: int | None = Field(description="Number of the snapshot in use; null without one.")
    made_by: tuple[str, ...] = Field(description="SQL files and functions that made the numbers.")


class SkillMetrics(BaseModel):
    """One skill in a window of time."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")

    skill_name: str
    kind: str = Field(description="What the name stands for: skill, tool, mcp_tool, ...")
    invocation_count: int = Field(description="Invocations of every outcome.")
    completed_count: int
    failed_count: int
    rejected_count: int = Field(description="The user said no: not a failure of the skill.")
    cancelled_count: int
    interrupted_count: int
    no_result_count: int = Field(description="Its result was never seen.")
    completion_rate: float | None = Field(
        description="completed / (completed + failed), 0 to 1; null where both are 0."
    )
    completion_rate_n: int = Field(description="completed + failed.")
    completion_rate_low: float | None = Field(description="Wilson 95 % interval, lower bound.")
    completion_rate_high: float | None = Field(description="Wilson 95 % interval, upper bound.")
    avg_duration: float | None = Field(description="Seconds, over known durations.")
    duration_n: int = Field(description="Invocations whose duration is known.")
    duration_p50: float | None = Field(
        description="Seconds; null beyond 48 hours, where it is not counted."
    )
    duration_p95: float | None = Field(description="Seconds; null beyond 48 hours.")
    unique_sessions: int | None = Field(description="Null beyond 48 hours.")
    last_invocation_at: str | None = Field(description="Latest start in the window, UTC.")


class RealTimeMetrics(Answer):
    """The skills that were used most in the last hours."""

    top_skills: tuple[SkillMetrics, ...] = Field(description="Most used first, then by name.")
    time_window_hours: float
    window_start: str = Field(description="UTC, not included.")
    window_end: str = Field(description="UTC, included.")
    kind: str = Field(description="Kind that was asked for; 'default' is all but tool.")
    skills: int = Field(description="Skills of that kind in the window.")
    invocations: int = Field(description="Their invocations.")
    hidden_skills: int = Field(description="Skills of other kinds in the window.")
    hidden_invocations: int = Field(description="Their invocations.")
    truncated: bool = Field(description="Whether limit cut the list short.")
    omitted: int = Field(description="Skills that limit cut off.")
    active_sessions: int = Field(description="Sessions with an event in the last 15 minutes.")
    last_event_id: int = Field(description="Newest recorded invocation.")
    last_event_at: str | None = Field(description="Its start, UTC.")
    snapshot: int | None = Field(description="Number of the snapshot in use.")
    stale_reason: str | None = Field(
        description="Why the numbers are old; null while they are not."
    )
    source: Source
