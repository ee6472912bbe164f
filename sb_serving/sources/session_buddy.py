"""Session-Buddy's own log: one row of another `skills.db` as one `Invocation`.

Here: what the columns mean. Opening such a file, whatever its version, and its other tables live
in `store/other_versions.py`; the limits of a field in `store/checks.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sb_serving.events import Invocation

SOURCE = "session_buddy"


def invocation(row: Mapping[str, Any], user: Callable[[str], str]) -> Invocation:
    """Read one row of `skill_invocation`, with what `skill_user_interactions` says of it.

    Session-Buddy's `completed = 0` means failed, abandoned or still running: with an error type it
    is `failed`, without one nobody knows, so `no_result`. The user's query, the alternatives and
    the follow-up actions are free text and are not read.

    Args:
        row: The columns of `sql/store/other_rows.sql`.
        user: Hashes a user's id.

    Returns:
        The record, its values as they stand in the file: the store checks them.
    """
    completed = row["completed"] == 1
    error_type = row["error_type"] or None
    unfinished = "no_result" if error_type is None else "failed"
    duration = row["duration_seconds"]
    return Invocation(
        skill_name=row["skill_name"],
        invoked_at=row["invoked_at"],
        session_id=str(row["session_id"]),
        outcome="completed" if completed else unfinished,
        kind="skill",
        source=SOURCE,
        duration_seconds=duration,
        duration_source=None if duration is None else "reported",
        error_type=None if completed else error_type,
        workflow_phase=row["workflow_phase"] or None,
        workflow_path=row["workflow_path"] or None,
        workflow_step_id=row["workflow_step_id"] or None,
        user_id=user(str(row["user_id"])) if row["user_id"] not in (None, "") else "",
        rating=row["rating"],
    )
