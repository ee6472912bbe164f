"""What happens in a demo: sessions and their calls, drawn in blocks and merged by time.

A block is an equal share of the expected volume with its own random stream. Its sessions lie
around its stretch of time, so its rows can be given out up to a few hours before the next stretch
begins, and the rest waits: memory is a few blocks, whatever the size. What exists before (skills,
users, versions, planted facts) is drawn in `world`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from itertools import pairwise, repeat
from typing import Any

import numpy as np

from sb_serving.demo import vocabulary as words
from sb_serving.demo.world import BROKEN_CHANCE, PAIR_CHANCE, Array, DemoPlan, World
from sb_serving.events import KINDS, OUTCOMES, PHASES, Invocation

Chunk = dict[str, Any]
"""Column name -> numpy array, all of one length; the columns are listed at `chunks`."""

BLOCK_ROWS = 100_000  # large enough that numpy's cost per call vanishes, small enough for memory
REACH = 4 * 3600.0  # longest session in seconds; no call is further from its session's anchor
LONGEST_SESSION = 40  # calls
LONGEST_CALL = 900.0  # seconds

RECENT = 3  # calls of the session that count as recent
RECENT_FAILURE = -1.0  # logit for each failure among them
FAMILIAR = 0.35  # logit for each unit of log(1 + earlier uses)
FAMILIAR_MOST = 10  # uses after which nothing more is learnt
FAMILIAR_MIDDLE = 0.7  # log(1 + earlier uses) at which familiarity neither helps nor hurts
# Logit by hour of day, UTC: a little worse at night.
HOUR_LOGIT = np.array([-0.4] * 6 + [-0.1] * 2 + [0.15] * 10 + [-0.1] * 4 + [-0.3] * 2)

_DECIDED = len(OUTCOMES)  # stands for completed or failed until it is known which
_COMPLETED, _FAILED, _REJECTED = 0, 1, 2  # positions in OUTCOMES, whose order the draws rely on
_NOT_RUN = [OUTCOMES.index(name) for name in ("rejected", "cancelled", "no_result")]
_SKILL = KINDS.index("skill")
_PHASE_INFERRED = [KINDS.index("tool"), KINDS.index("mcp_tool")]
_SETUP, _EXECUTION, _VERIFICATION, _CLEANUP, _ROLLBACK = (
    PHASES.index(name) for name in ("setup", "execution", "verification", "cleanup", "rollback")
)
_NONE = -1  # a code that is looked up as the last entry of a vocabulary, None


def chunks(plan: DemoPlan) -> Iterator[Chunk]:
    """The rows of a plan as columns, sorted by `invoked_at`, about 100,000 rows at a time.

    Args:
        plan: What to draw; the same plan gives the same chunks.

    Yields:
        Columns named like the fields of `Invocation` (without `workflow_path`,
        `workflow_step_id` and `rating`, which a demo leaves empty): `invoked_at` is
        datetime64[us] in UTC; text columns are object arrays of str, None where unknown;
        `duration_seconds` (float64), `tool_calls` and `tool_failures` (int32) are masked arrays,
        masked where unknown; `phase_inferred` is bool. Besides them `completed` (bool) and
        `p_completed` (float64), the true probability of the outcome `completed` given what was
        known before the call. No chunk for n = 0.
    """
    if plan.n == 0:
        return
    world = World.of(plan)
    blocks = -(-plan.n // BLOCK_ROWS)
    stretch = world.timeline.at(np.linspace(0.0, 1.0, blocks + 1))
    counts = np.random.default_rng([plan.seed, 1]).multinomial(plan.n, [1.0 / blocks] * blocks)
    uses = np.zeros(len(world.users.id) * len(world.skills.name), dtype=np.uint8)
    waiting: Chunk | None = None
    row = session = 0
    for block, count in enumerate(counts.tolist()):
        rng = np.random.default_rng([plan.seed, 2, block])
        rows, sizes = _sessions(world, rng, count, block / blocks, (block + 1) / blocks)
        rows["session"] += session
        session += len(sizes)
        _outcomes(world, rng, rows, sizes, _earlier_uses(world, waiting, rows, uses))
        pool = rows if waiting is None else _joined(waiting, rows)
        order = np.argsort(pool["at"], kind="stable")
        until = np.inf if block == blocks - 1 else 1e6 * (stretch[block + 1] - REACH)
        ready = int(np.searchsorted(pool["at"][order], until))
        given = {name: column[order[:ready]] for name, column in pool.items()}
        waiting = {name: column[order[ready:]] for name, column in pool.items()}
        if ready:
            _count_uses(world, given, uses)
            yield _columns(world, given, row)
        row += ready


def invocations(plan: DemoPlan) -> Iterator[Invocation]:
    """The rows of a plan as records, the very draw of `chunks`, in the same order.

    Args:
        plan: What to draw.

    Yields:
        `plan.n` records, sorted by `invoked_at`.
    """
    for chunk in chunks(plan):
        times = np.datetime_as_string(chunk["invoked_at"], unit="us").tolist()
        columns: dict[str, Any] = {name: column.tolist() for name, column in chunk.items()}
        columns["invoked_at"] = [text + "+00:00" for text in times]
        yield from map(
            Invocation,
            *(columns.get(field.name, repeat(field.default)) for field in fields(Invocation)),
        )


def _joined(first: Chunk, second: Chunk) -> Chunk:
    return {name: np.concatenate([first[name], second[name]]) for name in first}


def _sizes(rng: np.random.Generator, rows: int) -> Array:
    """Calls per session, about 12 in the mean, `rows` in all; the last session is cut to fit."""
    drawn = rng.lognormal(2.25, 0.75, rows // 8 + 20).round()
    size = np.clip(drawn, 1, LONGEST_SESSION).astype(np.int64)
    while size.sum() < rows:
        size = np.concatenate([size, size])
    ends = np.cumsum(size)
    last = int(np.searchsorted(ends, rows))
    size = size[: last + 1]
    size[last] -= ends[last] - rows
    return size


def _sessions(
    world: World, rng: np.random.Generator, count: int, low: float, high: float
) -> tuple[Chunk, Array]:
    """Everything about `count` calls but how they end, in sessions, as codes.

    Args:
        world: What exists.
        rng: The block's random stream.
        count: Calls to draw, at least 1.
        low: Share of the expected volume at which the block begins.
        high: Share at which it ends.

    Returns:
        Columns of codes, call by call within session by session, and the sessions' sizes. `at` is
        in microseconds after the begin of the plan.
    """
    skills, users = world.skills, world.users
    size = _sizes(rng, count)
    of = np.repeat(np.arange(len(size)), size)
    final = np.cumsum(size) - 1
    begins = final - size + 1
    anchor = world.timeline.at(rng.uniform(low, high, len(size)))
    activity = users.reach[world.joined(anchor) - 1]
    user = np.searchsorted(users.reach, rng.random(len(size)) * activity, side="right")
    agent = users.agent[user]
    skill = skills.by_group.draw(users.group[user][of], rng.random(count))
    _follow_pairs(skills.partner, rng, skill, of)

    noise = rng.standard_normal(count)
    seconds = np.minimum(np.exp(skills.median[skill] + skills.spread[skill] * noise), LONGEST_CALL)
    pause = 0.5 + np.minimum(rng.exponential(25.0, count), 600.0)
    offset = np.cumsum(seconds + pause) - seconds - pause
    offset -= offset[begins][of]
    length = offset[final] + seconds[final]
    squeeze = np.minimum(1.0, REACH / length)
    offset, seconds, length = offset * squeeze[of], seconds * squeeze[of], length * squeeze
    # A session lies around its anchor, so that calls, not only starts, follow the timeline. One
    # that begins too early is mirrored at the begin; none runs past the end.
    start = np.abs(anchor - rng.random(len(size)) * length)
    start = np.minimum(start, world.span - length)

    project = np.where(rng.random(len(size)) < 0.75, users.home[user], users.second[user])
    model = world.models.draw(agent, rng.random(len(size)))
    is_skill = skills.kind[skill] == _SKILL
    trigger = np.where(is_skill, np.where(rng.random(count) < 0.7, 0, 1), _NONE)
    return {
        "session": of,
        "at": np.floor((start[of] + offset) * 1e6).astype(np.int64),
        "milliseconds": np.maximum(np.floor(seconds * 1e3), 1.0),
        "skill": skill,
        "user": user[of],
        "project": project[of],
        "agent": agent[of],
        "version": _version(world, agent, start - users.lag[user])[of],
        "model": (agent * world.model_name.shape[1] + model)[of],
        "trigger": trigger,
        "phase": _phase(skills.phase[skill], (np.arange(count) - begins[of]) / size[of], rng),
    }, size


def _follow_pairs(partner: Array, rng: np.random.Generator, skill: Array, of: Array) -> None:
    """Let the second of a planted pair replace the call after the first, in place."""
    wanted = partner[skill[:-1]]
    chosen = (wanted >= 0) & (of[1:] == of[:-1]) & (rng.random(len(wanted)) < PAIR_CHANCE)
    skill[1:][chosen] = wanted[chosen]


def _version(world: World, agent: Array, time: Array) -> Array:
    """Version codes: the latest of each session's agent that was out at `time`."""
    version = np.empty(len(agent), dtype=np.int64)
    for code, (low, high) in enumerate(pairwise(world.versions.first)):
        mine = agent == code
        newest = np.searchsorted(world.versions.since[low:high], time[mine], side="right") - 1
        version[mine] = low + np.maximum(newest, 0)
    return version


def _phase(home: Array, progress: Array, rng: np.random.Generator) -> Array:
    """Phase codes: mostly the skill's own, else by progress in the session, some unknown."""
    by_progress = np.array([_SETUP, _EXECUTION, _VERIFICATION, _CLEANUP])[
        np.searchsorted([0.2, 0.7, 0.92], progress, side="right")
    ]
    luck = rng.random(len(home))
    phase = np.where(luck < 0.55, home, by_progress)
    phase[luck >= 0.865] = _ROLLBACK
    phase[luck >= 0.88] = _NONE
    return phase


def _key(world: World, rows: Chunk) -> Array:
    key: Array = rows["user"] * len(world.skills.name) + rows["skill"]
    return key


def _count_uses(world: World, rows: Chunk, uses: Array) -> None:
    """Add given-out rows to the uses per user and skill, in place, up to what a byte holds."""
    keys, seen = np.unique(_key(world, rows), return_counts=True)
    uses[keys] = np.minimum(uses[keys] + seen, 255)


def _earlier_uses(world: World, waiting: Chunk | None, rows: Chunk, uses: Array) -> Array:
    """How often each call's user has called its skill before; never counts a later call.

    Waiting calls of earlier blocks count too, by their time. (Their own counts were taken before
    this block's sessions were known, so they may miss a use in a session that overlaps theirs.)
    """
    if not world.plan.learns:
        return np.zeros(len(rows["at"]))
    key, at = _key(world, rows), rows["at"]
    before = 0
    if waiting is not None:
        before = len(waiting["at"])
        key = np.concatenate([_key(world, waiting), key])
        at = np.concatenate([waiting["at"], at])
    order = np.lexsort((at, key))
    key = key[order]
    index = np.arange(len(key))
    begins = np.concatenate([[True], key[1:] != key[:-1]])
    count = np.empty(len(key))
    count[order] = index - np.maximum.accumulate(np.where(begins, index, 0)) + uses[key]
    return count[before:]


def _outcomes(
    world: World, rng: np.random.Generator, rows: Chunk, sizes: Array, earlier: Array
) -> None:
    """Add how each call ends: outcome, true probability, error, calls inside an episode."""
    skills, plan, skill = world.skills, world.plan, rows["skill"]
    kind, count = skills.kind[skill], len(skill)
    breaks = (skill == skills.failing) & (rows["version"] == world.versions.failing) & plan.fails
    most = np.where(breaks, 1.0 - BROKEN_CHANCE, 1.0)
    limits = np.cumsum([words.HABITS[name].others for name in KINDS], axis=1)
    luck, chance = rng.random(count), rng.random(count)
    outcome = np.full(count, _REJECTED)
    for column in range(limits.shape[1]):
        outcome += luck >= limits[kind, column]
    decided = outcome == _DECIDED
    logit = skills.logit[skill]
    if plan.signal:
        logit = logit + _signal(world, rows, earlier)
    success = _play(logit, most, decided, chance, sizes, RECENT_FAILURE if plan.signal else 0.0)
    failed = decided & (chance >= success)
    outcome[decided] = np.where(failed, _FAILED, _COMPLETED)[decided]

    error = np.searchsorted([0.6, 0.9], rng.random(count), side="right")
    error[breaks & (chance >= 1.0 - BROKEN_CHANCE)] = skills.errors.shape[1]
    episode = np.flatnonzero(kind == _SKILL)
    calls, failures = np.full(count, _NONE), np.full(count, _NONE)
    calls[episode] = 1 + rng.poisson(6.0, len(episode))
    failures[episode] = rng.binomial(calls[episode], np.where(failed[episode], 0.3, 0.05))
    rows["outcome"] = outcome
    rows["p_completed"] = success * (1.0 - limits[kind, -1])
    rows["error"] = np.where(failed, error, _NONE)
    rows["tool_calls"] = calls
    rows["tool_failures"] = failures


def _signal(world: World, rows: Chunk, earlier: Array) -> Array:
    """Logit added by hour, model, familiarity and trend; recent failures come in `_play`."""
    added = world.model_logit.ravel()[rows["model"]]
    if world.plan.seasons:
        hour = (world.begin_us + rows["at"]) // 3_600_000_000 % 24
        added = added + HOUR_LOGIT[hour]
    if world.plan.learns:
        learnt = np.log1p(np.minimum(earlier, FAMILIAR_MOST)) - FAMILIAR_MIDDLE
        elapsed = rows["at"] / (world.span * 1e6) - 0.5
        added = added + FAMILIAR * learnt + world.skills.trend[rows["skill"]] * elapsed
    return added


def _play(
    logit: Array, most: Array, decided: Array, chance: Array, sizes: Array, recent_failure: float
) -> Array:
    """P(completed | completed or failed) of each call, all sessions played side by side.

    Within a session every call ends before the next begins, so a failure is known in time.

    Args:
        logit: What a call brings along, apart from its session's recent failures.
        most: Factor on the probability, below 1 where the planted failure hits.
        decided: Whether the call will be completed or failed; others are no failures.
        chance: Uniform in [0, 1); the call fails where it is not below the probability.
        sizes: Calls per session; calls lie session by session.
        recent_failure: Logit added for each failure among the session's last `RECENT` calls.
    """
    if not recent_failure:
        return most / (1.0 + np.exp(-logit))
    success = np.empty(len(logit))
    longest_first = np.argsort(-sizes, kind="stable")
    begins = (np.cumsum(sizes) - sizes)[longest_first]
    going_on = len(sizes) - np.cumsum(np.bincount(sizes))  # sessions with more than i calls
    recent = np.zeros((RECENT, len(sizes)))
    for step, active in enumerate(going_on[:-1].tolist()):
        row = begins[:active] + step
        value = logit[row] + recent_failure * recent[:, :active].sum(axis=0)
        success[row] = most[row] / (1.0 + np.exp(-value))
        recent[step % RECENT, :active] = decided[row] & (chance[row] >= success[row])
    return success


def _columns(world: World, rows: Chunk, first_row: int) -> Chunk:
    """Codes to values; the form that `chunks` promises."""
    skills, skill = world.skills, rows["skill"]
    count, kind = len(skill), skills.kind[skill]
    session = rows["session"]
    low, high = int(session.min()), int(session.max())
    prefix = f"demo-{world.plan.seed}-"
    sessions = _texts([f"{prefix}session-{i}" for i in range(low, high + 1)])
    none = np.full((len(skills.name), 1), None, dtype=object)
    planted = np.full((len(skills.name), 1), words.FAILING_ERROR, dtype=object)
    errors = np.hstack([skills.errors, planted, none])
    not_run = np.isin(rows["outcome"], _NOT_RUN)
    duration_source = skills.duration_source[skill]
    duration_source[not_run] = None
    no_episode = rows["tool_calls"] == _NONE
    return {
        "event_id": _texts([f"{prefix}{i}" for i in range(first_row, first_row + count)]),
        "skill_name": skills.name[skill],
        "invoked_at": (world.begin_us + rows["at"]).astype("datetime64[us]"),
        "session_id": sessions[session - low],
        "outcome": _texts(OUTCOMES)[rows["outcome"]],
        "kind": _texts(KINDS)[kind],
        "source": np.full(count, "demo", dtype=object),
        "duration_seconds": np.ma.masked_array(rows["milliseconds"] / 1e3, mask=not_run),
        "duration_source": duration_source,
        "error_type": errors[skill, rows["error"]],
        "workflow_phase": _texts([*PHASES, None])[rows["phase"]],
        "phase_inferred": np.isin(kind, _PHASE_INFERRED) & (rows["phase"] != _NONE),
        "user_id": world.users.id[rows["user"]],
        "project_id": world.users.projects[rows["project"]],
        "agent": _texts([*words.AGENTS])[rows["agent"]],
        "agent_version": world.versions.name[rows["version"]],
        "model": world.model_name.ravel()[rows["model"]],
        "trigger": _texts(["model", "user", None])[rows["trigger"]],
        "tool_calls": np.ma.masked_array(rows["tool_calls"].astype(np.int32), mask=no_episode),
        "tool_failures": np.ma.masked_array(
            rows["tool_failures"].astype(np.int32), mask=no_episode
        ),
        "completed": rows["outcome"] == _COMPLETED,
        "p_completed": rows["p_completed"],
    }


def _texts(values: Any) -> Array:
    return np.array(values, dtype=object)
