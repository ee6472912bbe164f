"""What a record must be before it is stored, field by field.

A refused record names the field, the value and what would be right. Parsing of sources is not done
here; what arrives is an `Invocation`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache
from operator import attrgetter
from typing import Any

from sb_serving import times
from sb_serving.errors import SbError
from sb_serving.events import KINDS, OUTCOMES, PHASES, Invocation

MAX_NAME = 256
MAX_TEXT = 1024
END_OF_TIME = "9900"
"""Start years from here on are refused: an end ten years later has to be a date as well."""

MAX_RATING = 5
MAX_COUNT = 2**31
MAX_DURATION = 10 * 365 * 86_400.0
AHEAD = timedelta(minutes=5)
"""How far a clock may run ahead before the recorder refuses its rows."""

_CANONICAL = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_NAME = re.compile(r"(?=.*\S)[^\x00-\x1f\x7f\ud800-\udfff]{1,256}\Z")
_HASH = re.compile(r"[0-9a-f]{32}\Z")


def checked(invocation: Invocation, *, latest: str | None = None) -> Invocation:
    """Return the invocation in canonical form, or refuse it.

    Args:
        invocation: What a source or a caller made.
        latest: Canonical time after which `invoked_at` is refused; None accepts any.

    Raises:
        SbError: A field is wrong; names it, its value and what is allowed.
    """
    check_name("skill_name", invocation.skill_name)
    check_name("session_id", invocation.session_id)
    check_name("source", invocation.source)
    _check_choice("outcome", invocation.outcome, OUTCOMES)
    _check_choice("kind", invocation.kind, KINDS)
    if invocation.workflow_phase is not None:
        _check_phase("workflow_phase", invocation.workflow_phase)
    _check_choice("phase_inferred", invocation.phase_inferred, (False, True))
    _check_optional(invocation)
    _check_numbers(invocation)
    return _with_time(invocation, latest)


def without_wrong_extras(invocation: Invocation) -> tuple[Invocation, list[str]]:
    """Leave out what is wrong among the fields that only describe a run.

    For logs of programs that checked nothing: the run counts all the same.

    Returns:
        The record, and the names of the fields left out.
    """
    wrong = []
    for field, check in _EXTRAS.items():
        value = getattr(invocation, field)
        if value is not None:
            try:
                check(field, value)
            except SbError:
                wrong.append(field)
    if not wrong:
        return invocation, wrong
    without: dict[str, Any] = dict.fromkeys(wrong)
    if "duration_seconds" in without:
        without["duration_source"] = None
    return replace(invocation, **without), wrong


def _check_optional(invocation: Invocation) -> None:
    if invocation.event_id is not None:
        check_name("event_id", invocation.event_id)
    if invocation.error_type is not None:
        if invocation.outcome == "completed":
            raise SbError(f"error_type = {invocation.error_type!r} on a completed run")
        check_name("error_type", invocation.error_type)
    if invocation.user_id != "" and not _is_hash(invocation.user_id):
        raise _not_hashed("user_id", invocation.user_id)
    if invocation.project_id and not _is_hash(invocation.project_id):
        raise _not_hashed("project_id", invocation.project_id)
    for field, text in zip(_TEXTS, _texts_of(invocation), strict=True):
        if text is not None:
            _check_text(field, text)


_TEXTS = (
    "workflow_path",
    "workflow_step_id",
    "agent",
    "agent_version",
    "model",
    "trigger",
    "duration_source",
)
_texts_of = attrgetter(*_TEXTS)


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and _HASH.match(value) is not None


def _not_hashed(field: str, value: object) -> SbError:
    return SbError(
        f"{field} = {value!r} is not a keyed hash of 32 hex digits",
        fix="Hash it with store.Identity; raw names are never stored.",
    )


def _check_text(field: str, value: object) -> None:
    if not isinstance(value, str):
        raise SbError(f"{field} = {value!r}: expected a text")
    if len(value) > MAX_TEXT:
        raise SbError(
            f"{field} = {value[:40]!r}... has {len(value)} characters, at most {MAX_TEXT}"
        )
    if not value.isprintable() and _CONTROL.search(value):
        raise SbError(f"{field} = {value!r} contains a control character")


def check_name(field: str, value: object) -> None:
    """Refuse what is no name: not a text, empty, too long, or with control characters."""
    if isinstance(value, str) and _NAME.match(value):
        return
    if not isinstance(value, str) or not value.strip():
        raise SbError(f"{field} = {value!r}: expected a text that is not empty")
    if len(value) > MAX_NAME:
        raise SbError(
            f"{field} = {value[:40]!r}... has {len(value)} characters, at most {MAX_NAME}"
        )
    if _CONTROL.search(value):
        raise SbError(f"{field} = {value!r} contains a control character")


def _check_choice(field: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        choices = ", ".join(map(str, allowed))
        raise SbError(f"{field} = {value!r}", fix=f"Expected one of {choices}.")


def _check_phase(field: str, value: object) -> None:
    _check_choice(field, value, PHASES)


def _check_numbers(invocation: Invocation) -> None:
    if invocation.duration_seconds is not None:
        _check_duration("duration_seconds", invocation.duration_seconds)
    if invocation.rating is not None:
        _check_rating("rating", invocation.rating)
    if invocation.tool_calls is not None:
        _check_count("tool_calls", invocation.tool_calls)
    if invocation.tool_failures is not None:
        _check_count("tool_failures", invocation.tool_failures)


def _check_duration(field: str, value: object) -> None:
    # NaN is not between anything.
    if not (isinstance(value, int | float) and 0 <= value <= MAX_DURATION):
        raise SbError(f"{field} = {value!r}: expected seconds from 0 to ten years")


def _check_rating(field: str, value: object) -> None:
    if not (isinstance(value, int | float) and 0 <= value <= MAX_RATING):
        raise SbError(f"{field} = {value!r}: expected a number from 0 to {MAX_RATING}")


def _check_count(field: str, value: object) -> None:
    if not isinstance(value, int) or not 0 <= value < MAX_COUNT:
        raise SbError(f"{field} = {value!r}: expected a whole number from 0")


_EXTRAS = {
    "duration_seconds": _check_duration,
    "error_type": check_name,
    "rating": _check_rating,
    "workflow_path": _check_text,
    "workflow_phase": _check_phase,
    "workflow_step_id": _check_text,
}


def _with_time(invocation: Invocation, latest: str | None) -> Invocation:
    moment = invocation.invoked_at
    try:
        if _CANONICAL.match(moment):
            datetime.fromisoformat(moment)  # the form is right; is it a day of the calendar?
            text = moment
        else:
            text = times.to_utc_text(moment)
    except (ValueError, TypeError, OverflowError) as error:
        raise SbError(f"invoked_at: {error}", fix="Write 2026-01-31T12:00:00Z.") from None
    if text >= END_OF_TIME:
        raise SbError(f"invoked_at = {moment} is too far in the future to be true")
    if latest is not None and text > latest:
        raise SbError(
            f"invoked_at = {moment} lies more than 5 minutes in the future",
            fix="Set this computer's clock.",
        )
    return invocation if text == moment else replace(invocation, invoked_at=text)


def latest_allowed() -> str:
    """The last start time that the recorder accepts now, to the second."""
    return _ahead_of(times.now().replace(microsecond=0))


@lru_cache(maxsize=1)
def _ahead_of(second: datetime) -> str:
    return times.to_utc_text(second + AHEAD)
