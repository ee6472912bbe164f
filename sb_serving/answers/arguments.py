"""Arguments that several questions take, and their checks.

A check raises `SbError` with the argument's name, the value and what is expected. The faces check
types first; these also guard the Python API, where anything may come.
"""

from __future__ import annotations

from numbers import Real
from typing import Any, Literal, get_args

from sb_serving.errors import SbError

Kind = Literal[
    "skill", "tool", "mcp_tool", "subagent", "command", "ci_stage", "quality_check", "all"
]
"""What a ranking may be narrowed to; `all` also shows the built-in tools."""

MAX_LIMIT = 200
MAX_HOURS = 10 * 365.25 * 24


def checked_limit(limit: Any) -> int:
    """The most rows to list, 1 to `MAX_LIMIT`."""
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_LIMIT:
        raise SbError(f"limit = {limit!r}", fix=f"Expected a whole number from 1 to {MAX_LIMIT}.")
    return limit


def checked_hours(name: str, hours: Any) -> float:
    """A length of time in hours, above 0 and at most ten years."""
    number = isinstance(hours, Real) and not isinstance(hours, bool)
    if not number or not 0 < hours <= MAX_HOURS:  # false for NaN too
        raise SbError(
            f"{name} = {hours!r}",
            fix=f"Expected hours above 0 and at most {MAX_HOURS:.0f} (ten years).",
        )
    return float(hours)


def checked_kind(kind: Any) -> Kind | None:
    """One of `Kind`, or None for all but the built-in tools."""
    if kind is not None and kind not in get_args(Kind):
        raise SbError(f"kind = {kind!r}", fix=f"Expected one of {', '.join(get_args(Kind))}.")
    chosen: Kind | None = kind
    return chosen


def checked_name(argument: str, name: Any) -> str:
    """A name of a skill."""
    if not isinstance(name, str) or not name.strip():
        raise SbError(f"{argument} = {name!r}", fix="Expected the name of a skill.")
    return name


def checked_one_of(argument: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """One of a few values; 7.0 and True are not 7 and 1."""
    if not any(type(value) is type(one) and value == one for one in allowed):
        raise SbError(
            f"{argument} = {value!r}", fix=f"Expected one of {', '.join(map(str, allowed))}."
        )


def checked_number(argument: str, value: Any, least: float, most: float) -> None:
    """A number of a range; whole where the range is."""
    whole = isinstance(least, int)
    good = isinstance(value, int if whole else Real) and not isinstance(value, bool)
    if not good or not least <= value <= most:  # false for NaN too
        raise SbError(
            f"{argument} = {value!r}",
            fix=f"Expected a {'whole ' * whole}number from {least:g} to {most:g}.",
        )
