"""Scan windows of several lengths: sums, the price of looking so often, and one row per event.

Belongs here: sliding sums, how a p-value is split over window lengths, and how windows that tell of
the same event become one. Does not: the p-value of a window (`tails`, `conformal`) and the level
at which an event is reported (`fdr`).

An hour is looked at through windows of 1, 3, 6, 12 and 24 hours that end in it. Multiplying the
smallest p by five would be honest and wasteful: sliding windows overlap, and a long window needs no
help to see a long drop. Instead the single hour gets four fifths of the budget, the four longer
ones share the rest, and a long window counts for as many tests as it has separate chances to err.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["PRICE", "SEPARATE", "WINDOWS", "Candidates", "events", "sliding_sum"]

Floats: TypeAlias = NDArray[np.float64]

WINDOWS = (1, 3, 6, 12, 24)
"""Window lengths in hours."""

PRICE = {1: 1.5, 3: 12.0, 6: 12.0, 12: 9.0, 24: 9.0}
"""Factor on the p-value of a window of each length."""

SEPARATE = {1: 1.0, 3: 1.0, 6: 0.9, 12: 0.65, 24: 0.45}
"""Distinct chance events per sliding window at a small p: 10 million simulated hours of independent
noise gave 1.1, 0.9, 0.64 and 0.40 at p = 1e-5 and less at any larger p. Autocorrelated noise gives
fewer. With `PRICE`, SEPARATE / PRICE adds up to 1.05."""


SIGN_P = 1e-3
"""A window with a larger p is no sign that an event is still going on."""


@dataclass(frozen=True)
class Candidates:
    """Windows that may be anomalies, one entry each, all arrays of shape (c,).

    Attributes:
        skill: Row of the panel.
        last: Last hour of the window, a column of the panel.
        length: Hours.
        p: P-value after `PRICE`.
        window_p: P-value of the window alone.
        below: Whether the observation is below its expectation.
        shift: Correction of the baseline on the link scale that the window was tested with.
    """

    skill: NDArray[np.int64]
    last: NDArray[np.int64]
    length: NDArray[np.int64]
    p: Floats
    window_p: Floats
    below: NDArray[np.bool_]
    shift: Floats

    @staticmethod
    def joined(parts: list[Candidates]) -> Candidates:
        """All entries of `parts`; of no parts, no entries."""
        kinds = {"p": float, "window_p": float, "below": bool, "shift": float}
        fields = Candidates.__dataclass_fields__
        return Candidates(
            **{
                name: np.concatenate(
                    [np.empty(0, dtype=kinds.get(name, np.int64))]
                    + [getattr(part, name) for part in parts]
                )
                for name in fields
            }
        )


def sliding_sum(values: Floats, length: int) -> Floats:
    """Sum over the `length` columns that end in each column; shorter ones at the start.

    Args:
        values: Shape (skills, hours).
        length: Hours, at least 1.

    Returns:
        Sums, same shape.
    """
    if length == 1:
        return values
    run = np.cumsum(values, axis=1)
    out = run.copy()
    out[:, length:] -= run[:, :-length]
    return out


def events(candidates: Candidates) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pick one window per event: the strongest, the windows that overlap or continue it dropped.

    A window continues an event of the same direction when the pause between them is no longer
    than either: bad days with a good night between them are one event, two bad hours of a day are
    two.

    Args:
        candidates: Windows of one metric.

    Returns:
        Positions in `candidates`, strongest first within each skill, shape (e,); and for each
        event the first and last hour of all its windows with a p of at most `SIGN_P`, shape
        (e, 2).
    """
    order = np.lexsort((candidates.last, candidates.length, candidates.p, candidates.skill))
    edges = np.flatnonzero(np.diff(candidates.skill[order], prepend=-1, append=-1))
    picked: list[int] = []
    spans: list[list[int]] = []
    for begin, stop in pairwise(edges):
        found = _events_of_one_skill(candidates, order[begin:stop])
        picked += found[0]
        spans += found[1]
    return np.array(picked, dtype=np.int64), np.array(spans, dtype=np.int64).reshape(-1, 2)


def _events_of_one_skill(
    candidates: Candidates, order: NDArray[np.int64]
) -> tuple[list[int], list[list[int]]]:
    length = candidates.length[order]
    first = candidates.last[order] - length + 1
    margin = max(WINDOWS)
    origin = int(first.min()) - margin
    hours = int(candidates.last[order].max()) - origin + 1 + margin
    # 0 is free; a taken hour holds the length of its window, negative in a drop, and its event.
    taken = np.zeros(hours, dtype=np.int64)
    event = np.zeros(hours, dtype=np.int64)
    picked: list[int] = []
    spans: list[list[int]] = []
    for at, begin, size in zip(order, first - origin, length, strict=True):
        end = begin + size
        span = [int(begin) + origin, int(end) + origin - 1]
        mark = -size if candidates.below[at] else size
        near = _nearest(mark, taken, begin, end)
        if near is not None and np.sign(taken[near]) == np.sign(mark):
            number = int(event[near])
            if candidates.p[at] <= SIGN_P:
                old = spans[number]
                spans[number] = [min(old[0], span[0]), max(old[1], span[1])]
        elif near is None:
            number = len(picked)
            picked.append(int(at))
            spans.append(span)
        if not taken[begin:end].any():
            taken[begin:end], event[begin:end] = mark, number
    return picked, spans


def _nearest(mark: int, taken: NDArray[np.int64], begin: int, end: int) -> int | None:
    """A taken hour that the window overlaps or continues; None where it is a new event."""
    inside = np.flatnonzero(taken[begin:end])
    if len(inside):
        return int(begin + inside[-1])
    reach = abs(mark)
    before = np.flatnonzero(taken[begin - reach : begin])
    if len(before) and _continues(mark, taken[begin - reach + before[-1]], reach - 1 - before[-1]):
        return int(begin - reach + before[-1])
    after = np.flatnonzero(taken[end : end + reach])
    if len(after) and _continues(mark, taken[end + after[0]], after[0]):
        return int(end + after[0])
    return None


def _continues(mark: int, other: int, pause: int) -> bool:
    """Whether windows of the same direction are no further apart than the other one is long."""
    return bool(other * np.sign(mark) >= max(pause, 1))
