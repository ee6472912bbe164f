"""What becomes of anomalies from one search to the next: opened, updated, resolved, retracted.

Belongs here: comparing what was open with what was found, as a pure function. Does not: the search
(`anomaly`), and writing rows; rows are never deleted, so each list says what to insert or set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sb_serving.stats.anomaly import Anomaly, AnomalyReport, Span

__all__ = ["Known", "Reconciled", "reconcile"]

QUIET = timedelta(hours=24)
"""An event is over when no window has shown it for so long; before that it may be the night."""

LONGEST_WINDOW = timedelta(hours=24)
"""A row with a longer one is a lasting fall, which ends when no search finds it any more."""


@dataclass(frozen=True, slots=True)
class Known:
    """A stored row that is neither resolved nor retracted.

    Attributes:
        id: Of the row.
        anomaly: What it says.
    """

    id: int
    anomaly: Anomaly


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What to write.

    Attributes:
        opened: New rows, with the time at which they were resolved; None while they go on.
        updated: Open rows whose window or numbers changed; `id` stays.
        resolved: Rows that are over, with their last numbers: set `resolved_at` to now.
        retracted: Rows that late events or corrections have made untrue; set `retracted_at` to
            now. They were shown, so they stay on record.
    """

    opened: tuple[tuple[Anomaly, datetime | None], ...]
    updated: tuple[Known, ...]
    resolved: tuple[Known, ...]
    retracted: tuple[Known, ...]


def reconcile(
    previous_open: Sequence[Known],
    found: AnomalyReport,
    now: datetime,
    *,
    searched_from: datetime,
    fresh_from: datetime,
    settled: Sequence[Anomaly] = (),
    q: float = 0.05,
) -> Reconciled:
    """Decide what a new search means for the rows that are open.

    An open row and a found event are the same when skill and metric agree, both are drops or both
    are spikes (a pattern shift is either), and the row's window lies less than a day from the
    event's span.

    Args:
        previous_open: Rows that are open.
        found: The new search. Searched at a false discovery rate above `q`, an open row stays
            while its event is found at all, and does not come and go with each hour's level.
        now: The end of the hours searched.
        searched_from: Their beginning; what lies before it was not looked at again.
        fresh_from: Hours from here on were never searched before, or have changed. Events before
            them are not opened: what a search did not find, the next one finds by chance only.
        settled: Rows that were resolved and may lie in these hours: they are not opened again.
        q: Only events with a q-value of at most this are opened.

    Returns:
        What to open, update, resolve and retract.
    """
    free = list(zip(found.anomalies, found.spans, strict=True))
    updated: list[Known] = []
    resolved: list[Known] = []
    retracted: list[Known] = []
    for known in sorted(previous_open, key=lambda known: known.anomaly.p_value):
        match = _nearest(known.anomaly, free)
        if match is None:
            row = known.anomaly
            was_window = row.window_end - row.window_start <= LONGEST_WINDOW
            searched = row.window_end > searched_from
            (retracted if searched and was_window else resolved).append(known)
            continue
        free.remove(match)
        event, span = match
        if _over(span, now):
            resolved.append(replace(known, anomaly=event))
        elif event != known.anomaly:
            updated.append(replace(known, anomaly=event))
    opened = [
        (event, now if _over(span, now) else None)
        for event, span in free
        if event.q_value <= q
        and span[1] > fresh_from
        and not (_over(span, now) and any(_same(row, event, span) for row in settled))
    ]
    return Reconciled(tuple(opened), tuple(updated), tuple(resolved), tuple(retracted))


def _over(span: Span, now: datetime) -> bool:
    return span[1] + QUIET <= now


def _nearest(known: Anomaly, found: Sequence[tuple[Anomaly, Span]]) -> tuple[Anomaly, Span] | None:
    same = [(event, span) for event, span in found if _same(known, event, span)]
    return min(same, key=lambda pair: (_apart(known, pair[1]), pair[0].p_value), default=None)


def _same(known: Anomaly, event: Anomaly, span: Span) -> bool:
    return (
        (event.skill_name, event.metric) == (known.skill_name, known.metric)
        and _same_direction(event, known)
        and _apart(known, span) < QUIET
    )


def _same_direction(one: Anomaly, other: Anomaly) -> bool:
    kinds = {one.anomaly_type, other.anomaly_type}
    return len(kinds) == 1 or "pattern_shift" in kinds


def _apart(known: Anomaly, span: Span) -> timedelta:
    """The pause between a window and a span; none where they overlap."""
    pause = max(known.window_start, span[0]) - min(known.window_end, span[1])
    return max(pause, timedelta(0))
