"""What an invocation is: the one record that every source produces and the store keeps.

The vocabulary (outcomes, kinds, phases) and the record live here. Checks of incoming values live
in `store/recorder.py`, parsing in `sources/`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sb_serving import times

OUTCOMES = ("completed", "failed", "rejected", "cancelled", "interrupted", "no_result")
KINDS = ("skill", "tool", "mcp_tool", "subagent", "command", "ci_stage", "quality_check")
PHASES = ("setup", "execution", "verification", "deployment", "cleanup", "rollback")

DURATION_BUCKETS = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds in seconds of the cumulative duration buckets; Session-Buddy's own."""


@dataclass(frozen=True, slots=True)
class Invocation:
    """One finished run of a skill or tool.

    Attributes:
        skill_name: As the assistant writes it (`Bash`, `mcp__server__tool`, `plugin:skill`); the
            prefixes `agent:`, `command:`, `ci:`, `check:` mark the other kinds.
        invoked_at: Start, canonical UTC text (see `times.to_utc_text`).
        session_id: The source's own session id.
        outcome: One of `OUTCOMES`. Only `completed` counts as completed; only `failed` counts
            against the skill.
        kind: One of `KINDS`.
        source: Which parser or program made the record.
        event_id: The source's own id of the call, the key on which copies are dropped; None where
            the source has none, then (session_id, skill_name, invoked_at) is the key.
        duration_seconds: None where unknown.
        duration_source: `reported`, `progress`, `gap_upper_bound` (includes waiting) or `span`.
        error_type: A short class such as `exit_1`; never the error's text.
        workflow_phase: One of `PHASES` or None.
        phase_inferred: True where a rule, not the source, gave the phase.
        workflow_path: Session-Buddy's free text path or None.
        workflow_step_id: Session-Buddy's step id or None.
        user_id: Keyed hash of the user, 32 hex digits; empty where unknown.
        project_id: Keyed hash of the project's root or None.
        agent: The assistant, such as `claude-code`.
        agent_version: Its version.
        model: The model that made the call.
        trigger: `model` or `user` for skills; None where it makes no sense.
        tool_calls: Calls inside an episode of kind `skill`.
        tool_failures: Failed calls among them.
        rating: The user's own rating, if one was given.
    """

    skill_name: str
    invoked_at: str
    session_id: str
    outcome: str
    kind: str
    source: str
    event_id: str | None = None
    duration_seconds: float | None = None
    duration_source: str | None = None
    error_type: str | None = None
    workflow_phase: str | None = None
    phase_inferred: bool = False
    workflow_path: str | None = None
    workflow_step_id: str | None = None
    user_id: str = ""
    project_id: str | None = None
    agent: str | None = None
    agent_version: str | None = None
    model: str | None = None
    trigger: str | None = None
    tool_calls: int | None = None
    tool_failures: int | None = None
    rating: float | None = None

    @property
    def ended_at(self) -> str:
        """When the outcome was known: start plus duration, or the start where none is known."""
        if not self.duration_seconds:
            return self.invoked_at
        start = times.from_text(self.invoked_at)
        return times.to_utc_text(start + timedelta(seconds=self.duration_seconds))
