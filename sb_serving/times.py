"""Points in time as text, in one canonical form.

Session-Buddy stores times as ISO 8601 text. Text sorts like time only while every row has the same
form, so whatever arrives is brought to one: UTC, microseconds, `+00:00`. An index on such text
serves a time window. Clocks are read here and nowhere in the pure rooms.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_DAY = datetime(9999, 12, 31, tzinfo=UTC)
_FORM = re.compile(
    r"\d{4}-\d\d-\d\d([ T]([01]\d|2[0-3]):\d\d(:\d\d(\.\d+)?)?(Z|[+-](0\d|1[0-4]):[0-5]\d)?)?",
    re.ASCII,
)


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


def readable(text: object) -> datetime | None:
    """A recorded time, of any program, as the warehouse reads it (`sql/warehouse/events.sql`).

    Returns:
        Aware, UTC; None where it is no time of the years 1 to 9999.
    """
    if not isinstance(text, str) or not _FORM.fullmatch(text):
        return None
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return moment if moment < _LAST_DAY else None


def microseconds(moment: datetime) -> int:
    """Microseconds since 1970, UTC."""
    return (moment - _EPOCH) // MICROSECOND


def of_microseconds(number: int) -> datetime:
    """The moment so many microseconds after 1970 began, aware, UTC."""
    return _EPOCH + number * MICROSECOND


def now() -> datetime:
    """The current time, aware, in UTC."""
    return datetime.now(UTC)


def now_text() -> str:
    """The current time in the canonical form."""
    return to_utc_text(now())
