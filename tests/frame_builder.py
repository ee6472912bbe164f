"""Frames made by hand: what the faces show, without a database."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from sb_serving.events import DURATION_BUCKETS
from sb_serving.frame import Anomaly, Frame, SkillWindow, Total, ranked

AT = "2026-11-22T12:00:00.000000+00:00"


def window(skill_name: str = "commit", **fields: Any) -> SkillWindow:
    """A skill's window; n follows from the outcomes."""
    values: dict[str, Any] = {
        "kind": "skill",
        "completed": 3,
        "failed": 1,
        "rejected": 0,
        "cancelled": 0,
        "interrupted": 0,
        "no_result": 0,
        "duration_n": 4,
        "duration_sum": 6.0,
        "last_invoked_at": AT,
        "unique_sessions": 2,
        "duration_p50": 1.5,
        "duration_p95": 2.0,
    }
    values |= fields
    n = sum(
        values[outcome]
        for outcome in ("completed", "failed", "rejected", "cancelled", "interrupted", "no_result")
    )
    return SkillWindow(skill_name=skill_name, n=n, **values)


def total(n: int = 1, seconds: float = 1.5) -> Total:
    """All of `n` invocations took the same time."""
    buckets = tuple(n if seconds <= bound else 0 for bound in DURATION_BUCKETS)
    return Total(n, n, n * seconds, buckets)


def anomaly(skill_name: str = "commit", **fields: Any) -> Anomaly:
    """An open drop of completion."""
    values: dict[str, Any] = {
        "anomaly_type": "drop",
        "metric": "completion",
        "window_start": "2026-11-22T10:00:00.000000+00:00",
        "window_end": "2026-11-22T11:00:00.000000+00:00",
        "n": 20,
        "baseline_value": 0.9,
        "observed_value": 0.4,
        "deviation_score": -5.2,
        "p_value": 1e-7,
        "q_value": 1e-5,
        "detected_at": "2026-11-22T11:05:00.000000+00:00",
    }
    return Anomaly(skill_name=skill_name, **(values | fields))


def frame(**fields: Any) -> Frame:
    """A frame of two skills and one tool on snapshot 7."""
    windows = ranked(
        [
            window("commit"),
            window("review", completed=1, failed=0, duration_n=0, duration_sum=0.0),
            window("Bash", kind="tool", completed=40, failed=2),
        ]
    )
    values: dict[str, Any] = {
        "at": AT,
        "snapshot_number": 7,
        "snapshot_published_at": "2026-11-22T11:55:00.000000+00:00",
        "watermark_id": 90,
        "last_event_id": 100,
        "last_event_at": "2026-11-22T11:59:58.000000+00:00",
        "hour": windows,
        "day": windows,
        "totals": MappingProxyType(
            {
                ("commit", "skill", "execution", "completed"): total(30),
                ("commit", "skill", "execution", "failed"): total(5, 0.3),
                ("review", "skill", "unknown", "completed"): Total(4, 0, 0.0, (0,) * 9),
                ("Bash", "tool", "unknown", "completed"): total(61, 0.05),
            }
        ),
        "active_sessions": 3,
        "anomalies": (anomaly(),),
        "total_invocations": 100,
    }
    return Frame(**(values | fields))


def busy_frame(skills: int = 300, **fields: Any) -> Frame:
    """A frame of many skills, the first the busiest."""
    windows = ranked(window(f"skill-{i:03d}", completed=skills - i) for i in range(skills))
    totals = {
        (f"skill-{i:03d}", "skill", "execution", outcome): total(n)
        for i in range(skills)
        for outcome, n in (("completed", 2 * (skills - i)), ("failed", 1))
    }
    return frame(hour=windows, day=windows, totals=MappingProxyType(totals), **fields)
