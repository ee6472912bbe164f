"""Points in time as text, in one canonical form.

Session-Buddy stores times as ISO 8601 text. Text sorts like time only while every row has the same
form, so whatever arrives is brought to one: UTC, microseconds, `+00:00`. An index on such text
serves a time window. Clocks are read here and nowhere in the pure rooms.
"""

from __future__ import annotations

from datetime import UTC, datetime


def to_utc_text(value: str | datetime) -> str:
    """Bring a time to the canonical form `YYYY-MM-DDTHH:MM:SS.ffffff+00:00`.

    Args:
        value: ISO 8601 text (a trailing `Z` and a missing offset both mean UTC) or a datetime
            (naive means UTC).

    Raises:
        ValueError: The text is not a time; the message names it.
    """
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(f"{value!r} is not an ISO 8601 time") from None
    else:
        moment = value
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def from_text(text: str) -> datetime:
    """Read canonical text back as an aware UTC datetime."""
    return datetime.fromisoformat(text).astimezone(UTC)


def now() -> datetime:
    """The current time, aware, in UTC."""
    return datetime.now(UTC)


def now_text() -> str:
    """The current time in the canonical form."""
    return to_utc_text(now())
