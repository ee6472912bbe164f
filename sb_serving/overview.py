"""The first screen: what ran, what fails and since when, what waits on you, what is never used.

A pure function over invocations in memory, for a look before anything is stored. Live numbers come
from `live`, stored results from `answers`; printing belongs to the command.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import timedelta
from statistics import quantiles

import numpy as np

from sb_serving import times
from sb_serving.events import Invocation
from sb_serving.stats.changepoint import find_rise
from sb_serving.stats.intervals import wilson

LEAST_DECIDED = 5
"""Fewer completed and failed runs than this say nothing about a skill."""

LEAST_WAITS = 20
"""Fewer durations than this have no 95th percentile worth showing."""

SHOWN = 5

RECENT = timedelta(days=7)
"""What fails is ranked over this time before the last call, where it holds enough."""

SURE = 0.01
"""A rise is named only below this p-value: five names are looked at."""


@dataclass(frozen=True, slots=True)
class Used:
    """A name, its kind and how often it ran."""

    skill_name: str
    kind: str
    n: int


@dataclass(frozen=True, slots=True)
class Failing:
    """A name that fails.

    Attributes:
        skill_name: The name.
        failed: Failed runs.
        decided: Completed and failed runs, the denominator.
        low: Lower end of the failure rate's 95 % Wilson interval; the list is ranked by it.
        high: Upper end.
        error_type: The most frequent class of error.
        error_n: How many of the failures have it.
        since: UTC day on which the failure rate rose; None where no change is found.
        since_p: p-value of that change.
        projects: How many projects the failures come from.
    """

    skill_name: str
    failed: int
    decided: int
    low: float
    high: float
    error_type: str | None
    error_n: int
    since: str | None
    since_p: float | None
    projects: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """A tool whose time from call to result includes waiting for the user's approval.

    Seconds: median, 95th percentile, over `n` calls.
    """

    skill_name: str
    n: int
    p50: float
    p95: float


@dataclass(frozen=True, slots=True)
class Overview:
    """The whole screen; an empty list means that there is not enough data for it.

    Attributes:
        sessions: Distinct sessions.
        invocations: Distinct calls.
        tool_calls: Calls of kinds tool and mcp_tool among them.
        skill_runs: Calls of kind skill among them.
        skills: Distinct names of kind skill.
        first_at: Earliest start, canonical text; None without data.
        last_at: Latest start.
        top: Most used names that are not plain tools.
        failing: Names that fail most, of all kinds, since `failing_from`.
        failing_from: UTC day from which failures were ranked: a week before the last call, or the
            first day where that week names fewer than `SHOWN`.
        waiting: Tools that wait longest on the user.
        listed: How many skills the assistant said it had.
        never_used: Those among them that never ran.
    """

    sessions: int
    invocations: int
    tool_calls: int
    skill_runs: int
    skills: int
    first_at: str | None
    last_at: str | None
    top: list[Used]
    failing: list[Failing]
    failing_from: str | None
    waiting: list[Waiting]
    listed: int
    never_used: list[str]


def overview(invocations: Iterable[Invocation], listed: Collection[str] = ()) -> Overview:
    """Condense invocations to one screen.

    Args:
        invocations: Each distinct call once, in any order.
        listed: Names of the skills that the assistant had at hand.
    """
    rows = sorted(invocations, key=lambda row: row.invoked_at)
    by_name: dict[str, list[Invocation]] = defaultdict(list)
    for row in rows:
        by_name[row.skill_name].append(row)
    kinds = Counter(row.kind for row in rows)
    used = Counter({name: len(own) for name, own in by_name.items() if own[0].kind != "tool"})
    failing, failing_from = _failing_lately(rows, by_name)
    ran = {name for name, own in by_name.items() if own[0].kind == "skill"}
    return Overview(
        sessions=len({row.session_id for row in rows}),
        invocations=len(rows),
        tool_calls=kinds["tool"] + kinds["mcp_tool"],
        skill_runs=kinds["skill"],
        skills=len(ran),
        first_at=rows[0].invoked_at if rows else None,
        last_at=rows[-1].invoked_at if rows else None,
        top=[Used(name, by_name[name][0].kind, n) for name, n in used.most_common(SHOWN)],
        failing=failing,
        failing_from=failing_from,
        waiting=_waiting(by_name),
        listed=len(listed),
        never_used=sorted(set(listed) - ran),
    )


def _failing_lately(
    rows: list[Invocation], by_name: dict[str, list[Invocation]]
) -> tuple[list[Failing], str | None]:
    if not rows:
        return [], None
    week_ago = times.to_utc_text(times.from_text(rows[-1].invoked_at) - RECENT)
    first = max(week_ago, rows[0].invoked_at)
    failing = _failing(by_name, first)
    if len(failing) < SHOWN:
        first = rows[0].invoked_at
        failing = _failing(by_name, first)
    return failing, first[:10]


def _failing(by_name: dict[str, list[Invocation]], first: str) -> list[Failing]:
    found = []
    for name, own in by_name.items():
        ever = [row for row in own if row.outcome in ("completed", "failed")]
        decided = [row for row in ever if row.invoked_at >= first]
        failed = [row for row in decided if row.outcome == "failed"]
        if len(decided) < LEAST_DECIDED or len(failed) < 2:
            continue
        low, high = wilson(len(failed), len(decided))
        errors = Counter(row.error_type for row in failed if row.error_type)
        error_type, error_n = errors.most_common(1)[0] if errors else (None, 0)
        since, since_p = _since(ever)
        found.append(
            Failing(
                skill_name=name,
                failed=len(failed),
                decided=len(decided),
                low=low,
                high=high,
                error_type=error_type,
                error_n=error_n,
                since=since,
                since_p=since_p,
                projects=len({row.project_id for row in failed}),
            )
        )
    return sorted(found, key=lambda failing: (-failing.low, failing.skill_name))[:SHOWN]


def _waiting(by_name: dict[str, list[Invocation]]) -> list[Waiting]:
    found = []
    for name, own in by_name.items():
        seconds = [
            row.duration_seconds
            for row in own
            if row.duration_source == "gap_upper_bound" and row.duration_seconds is not None
        ]
        if len(seconds) >= LEAST_WAITS:
            cuts = quantiles(seconds, n=20, method="inclusive")
            found.append(Waiting(name, len(seconds), cuts[9], cuts[18]))
    return sorted(found, key=lambda waiting: (waiting.p50 - waiting.p95, waiting.skill_name))[:3]


def _since(decided: list[Invocation]) -> tuple[str | None, float | None]:
    """The UTC day on which the failure rate rose, with its p-value; (None, None) for no rise."""
    days = sorted({row.invoked_at[:10] for row in decided})
    place = {day: number for number, day in enumerate(days)}
    runs = np.zeros((2, len(days)), dtype=np.int64)
    for row in decided:
        runs[:, place[row.invoked_at[:10]]] += (row.outcome == "failed", 1)
    rise = find_rise(runs[0], runs[1])
    if rise is None or rise.p_value > SURE:
        return None, None
    return days[rise.index], rise.p_value
