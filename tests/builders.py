"""Small makers of records and files that several tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sb_serving.events import Invocation
from sb_serving.store import Store


def invocation(number: int = 1, **fields: Any) -> Invocation:
    """A valid record; `number` makes its time and event id its own."""
    values: dict[str, Any] = {
        "skill_name": "commit",
        "invoked_at": f"2026-11-20T10:{number // 60 % 60:02d}:{number % 60:02d}.000000+00:00",
        "session_id": "session-1",
        "outcome": "completed",
        "kind": "skill",
        "source": "test",
        "event_id": f"event-{number}",
        "duration_seconds": 1.5,
        "user_id": "0" * 32,
    }
    return Invocation(**(values | fields))


def new_store(folder: Path) -> Store:
    """A fresh store in a folder."""
    return Store.open(folder / "skills.db", create=True)


SESSION_BUDDY_INSERT = """
    insert into skill_invocation (skill_name, invoked_at, session_id, completed, error_type,
                                  duration_seconds, workflow_path)
    values (?, ?, ?, ?, ?, ?, ?)
"""
"""How Session-Buddy itself adds a row: no companion."""
