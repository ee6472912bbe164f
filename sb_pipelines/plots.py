"""Small plots for the metadata of a materialization, as Markdown that Dagster's UI shows.

Text, because a picture would be stored with every run, and pull in a library for it.
"""

from __future__ import annotations

from collections.abc import Sequence

_STEPS = "▁▂▃▄▅▆▇█"
_WIDTH = 30
_LABEL = 40


def columns(values: Sequence[int]) -> str:
    """One column per value; anything at all shows at least the lowest one."""
    most = max(values, default=0) or 1
    return "".join(_STEPS[-(-value * 7 // most)] if value else " " for value in values)


def bars(rows: Sequence[tuple[str, float, str]], most: float) -> str:
    """One line per row: label, bar, text.

    Args:
        rows: Label, value from 0 to `most`, and what to write behind the bar.
        most: Value of a full bar.
    """
    if not rows:
        return "nothing to show yet"
    width = min(max(len(label) for label, _, _ in rows), _LABEL)
    lines = [
        f"{label[:_LABEL]:{width}}  {_bar(value / most if most else 0.0):{_WIDTH}}  {text}"
        for label, value, text in rows
    ]
    return "\n".join(["```", *lines, "```"])


def ranges(rows: Sequence[tuple[str, float, float, float, str]], low: float, high: float) -> str:
    """One line per row: label, an interval with its point on an axis from `low` to `high`, text.

    Args:
        rows: Label, lower bound, point, upper bound, and what to write behind.
        low: Left end of the axis.
        high: Right end.
    """
    if not rows:
        return "nothing to show yet"
    width = min(max(len(label) for label, *_ in rows), _LABEL)
    scale = (_WIDTH - 1) / (high - low) if high > low else 0.0

    def place(value: float) -> int:
        return round((min(max(value, low), high) - low) * scale)

    lines = []
    for label, start, point, end, text in rows:
        axis = [" "] * _WIDTH
        for at in range(place(start), place(end) + 1):
            axis[at] = "─"
        axis[place(point)] = "●"
        lines.append(f"{label[:_LABEL]:{width}}  {''.join(axis)}  {text}")
    return "\n".join(["```", *lines, f"{'':{width}}  {low:<{_WIDTH - 8}.3g}{high:>8.3g}", "```"])


def _bar(share: float) -> str:
    eighths = round(min(max(share, 0.0), 1.0) * _WIDTH * 8)
    return "█" * (eighths // 8) + (" ▏▎▍▌▋▊▉"[eighths % 8]).strip()
