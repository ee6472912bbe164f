"""Sums over scan windows of one metric, and which of them are past and which are to be judged.

Belongs here: the panel of a metric by skill and hour, sliding sums of what the judging needs, and
the division into blocks with a past each. Does not: any judgement (`window_model`), the choice of
window lengths (`scan`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sb_serving.stats.scan import sliding_sum
from sb_serving.stats.seasonal import Baseline

__all__ = ["Panel", "Past", "Sums", "blocks", "hourly_sums", "thinning", "window_sums"]

Floats: TypeAlias = NDArray[np.float64]
Flags: TypeAlias = NDArray[np.bool_]

MAX_REFITS = 10
"""What is learned from the past is refreshed at most so often in one call."""

OVERLAP = 3
"""Of the past sliding windows only so many per window length are kept: the rest say nothing new."""

PAST_HOURS = 56 * 24
"""Hours of past to learn from."""

MIN_PAST_WINDOWS = 10
"""A window length is used once the past of the skill holds this many windows side by side."""


@dataclass(frozen=True)
class Panel:
    """One metric of all skills by hour, beginning at a midnight.

    Attributes:
        weight: Trials, hours watched or precisions, shape (skills, hours).
        total: Successes, counts or weighted sums, same shape.
        baseline: Predictions for `weight` and `total`.
        usable: Hours whose baseline rests on enough past to be judged or learned from.
        scored: Hours to judge, a subset of `usable`.
    """

    weight: Floats
    total: Floats
    baseline: Baseline
    usable: Flags
    scored: Flags


@dataclass(frozen=True)
class Sums:
    """Sums over windows of one length: by skill and last hour, or one entry per chosen window.

    Attributes:
        length: Hours.
        weight: Of the panel.
        total: Of the panel.
        expected: Weight times the mean of the baseline.
        information: Derivative of `expected` by a shift of all means on the link scale.
        slot: Variance that the baseline's own error adds.
        valid: Windows that can be learned from: usable, and ending in an hour with data.
        scored: Windows to judge: valid, and beginning where hours are scored.
    """

    length: int
    weight: Floats
    total: Floats
    expected: Floats
    information: Floats
    slot: Floats
    valid: Flags
    scored: Flags

    @property
    def residual(self) -> Floats:
        """What was seen beyond what was expected."""
        return self.total - self.expected

    def where(self, chosen: tuple[Any, ...] | Flags) -> Sums:
        """The windows that an index into (skills, hours) chooses."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        return Sums(**{k: v if k == "length" else v[chosen] for k, v in parts.items()})


@dataclass(frozen=True)
class Past:
    """The windows to learn from, one entry each, sorted by skill.

    Attributes:
        sums: Of each window.
        skill: Whose it is.
        last: Its last hour.
        skills: Number of skills.
    """

    sums: Sums
    skill: NDArray[np.int64]
    last: NDArray[np.int64]
    skills: int

    @staticmethod
    def of(sums: Sums, hours: slice, without: Flags) -> Past:
        """The valid windows that end in `hours`, thinned to `OVERLAP`.

        Args:
            sums: Windows of one length.
            hours: Columns.
            without: Hours that no window may hold, shape (skills, hours).
        """
        columns = np.arange(hours.start, hours.stop)
        columns = columns[columns % thinning(sums.length) == 0]
        clean = sliding_sum(without.astype(np.float64), sums.length)[:, columns] == 0
        skill, at = np.nonzero(sums.valid[:, columns] & clean)
        last = columns[at]
        return Past(sums.where((skill, last)), skill, last, len(sums.valid))

    def by_skill(self, values: Floats) -> Floats:
        """Sum of `values` over the windows of each skill, shape (skills,)."""
        sums = np.zeros(self.skills)
        if len(values):
            sums[self.skill[self._begins]] = np.add.reduceat(values, self._begins)
        return sums

    @cached_property
    def _begins(self) -> NDArray[np.int64]:
        """First window of each skill that has any."""
        return np.flatnonzero(np.diff(self.skill, prepend=-1))

    def side_by_side(self) -> Floats:
        """How many windows of each skill do not overlap, shape (skills,)."""
        return (
            self.by_skill(np.ones(len(self.skill))) * thinning(self.sums.length) / self.sums.length
        )

    def enough(self, now: Sums) -> Sums:
        """The windows to judge, without those of skills whose past is too short for them."""
        enough = self.side_by_side() >= MIN_PAST_WINDOWS
        return replace(now, scored=now.scored & enough[:, None])


def hourly_sums(panel: Panel) -> Sums:
    """The sums of windows of one hour; nothing is left in hours that are not usable.

    Args:
        panel: The metric.
    """
    family = panel.baseline.family
    used = panel.usable & (panel.weight > 0)
    weight = np.where(used, panel.weight, 0.0)
    mean = np.where(used, panel.baseline.mean, 0.5)
    information = weight * family.slope(mean)
    return Sums(
        length=1,
        weight=weight,
        total=np.where(used, panel.total, 0.0),
        expected=weight * mean,
        information=information,
        slot=information**2 * np.where(used, panel.baseline.link_variance, 0.0),
        valid=used,
        scored=used & panel.scored,
    )


def window_sums(hourly: Sums, length: int) -> Sums:
    """Sums over windows that end in an hour with data and begin where their skill is judged.

    Args:
        hourly: From `hourly_sums`.
        length: Hours.
    """
    names = ("weight", "total", "expected", "information", "slot")
    sums = {name: sliding_sum(getattr(hourly, name), length) for name in names}
    hours = np.arange(hourly.valid.shape[1])
    start = np.where(hourly.scored.any(axis=1), hourly.scored.argmax(axis=1), len(hours))
    return Sums(
        length=length,
        valid=hourly.valid & (hours >= length - 1),
        scored=hourly.scored & (hours - length + 1 >= start[:, None]),
        **sums,
    )


def blocks(scored: Flags, refit_days: int) -> Iterator[tuple[slice, slice]]:
    """Pairs of past and scored columns: what is learned from, and where it is used.

    Args:
        scored: Hours to judge, shape (skills, hours).
        refit_days: Days for which what was learned before them is used, more where that would
            be more than `MAX_REFITS` times.

    Yields:
        Two slices of columns; the first ends where the second begins.
    """
    columns = np.flatnonzero(scored.any(axis=0))
    if len(columns) == 0:
        return
    first_day, last_day = int(columns[0]) // 24, int(columns[-1]) // 24
    step = max(-(-(last_day - first_day + 1) // MAX_REFITS), refit_days)
    for day in range(first_day, last_day + 1, step):
        begin = max(24 * day, int(columns[0]))
        stop = min(24 * (day + step), int(columns[-1]) + 1)
        yield slice(max(begin - PAST_HOURS, 0), begin), slice(begin, stop)


def thinning(length: int) -> int:
    """Every how many hours a past window of this length is kept."""
    return max(length // OVERLAP, 1)
