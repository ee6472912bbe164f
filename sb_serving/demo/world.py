"""What exists in a demo before anything happens: skills, users, versions, seasons, planted facts.

`DemoPlan` is the whole input; `World` is everything drawn once from it, as arrays that `draw`
indexes; `truth` tells what was planted, so that an answer can be compared with it. Nothing here
depends on single calls: those are drawn in `draw`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb_serving.demo import vocabulary as words
from sb_serving.errors import SbError
from sb_serving.events import KINDS, PHASES

Array = NDArray[Any]

DAY = 86_400.0  # seconds
LEAST_SKILLS = 24  # what something is planted in, a few tools, three clusters of two or three
MOST_SKILLS = 400  # twelve nouns and five acts in eight themes name 480

# Of all draws; the clusters' skills get the rest.
TOOL_SHARE, SHARED_SHARE, FAILING_SHARE = 0.45, 0.20, 0.03
# Of a group's draws from clusters; all other clusters together get the rest.
FIRST_CLUSTER, SECOND_CLUSTER = 0.60, 0.34
PRESENT_AT_START = 0.6  # the other users join evenly over the days, and the volume grows with them
PAIR_CHANCE = 0.5  # how often the first of a planted pair is followed at once by the second
BROKEN_CHANCE = 0.8  # how often the planted failure hits a call that it can hit
TREND = 2.0  # logit that a trending skill gains or loses over all days


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """The whole input of a demo; the same plan always gives the same rows.

    Attributes:
        n: Number of invocations, 0 or more.
        seed: Any whole number of at least 0; another seed is another world.
        end: Aware time that no call reaches; there is no clock inside.
        days: Length in days, 2 to 3650; all calls start in [end - days, end).
        users: Number of users; None lets it grow with `n` (60 at 10,000, `n` / 200 from 12,000).
        skills: Number of skill names, 24 to 400; None lets it grow with `n` (40 at 10,000, 200
            from 1,000,000).
        planted_failure: One skill starts to fail under one agent version on one day.
        signal: The chance of success depends on hour, recent failures, familiarity, model and two
            trends besides the skill; otherwise on the skill alone.
        stationary: Rates and volumes do not change over the days: no growth, no day-to-day noise,
            all users there from the start, no trends, no familiarity, no planted failure.
        seasons: Volume (and with `signal` the chance of success) follows hour of day, and volume
            the day of week; otherwise both are flat.
    """

    n: int
    seed: int
    end: datetime
    days: int = 90
    users: int | None = None
    skills: int | None = None
    planted_failure: bool = True
    signal: bool = True
    stationary: bool = False
    seasons: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn.

        Raises:
            SbError: Names the field, its value and what is allowed.
        """
        _require("n", self.n, 0, None)
        _require("seed", self.seed, 0, None)
        _require("days", self.days, 2, 3650)
        if self.users is not None:
            _require("users", self.users, 1, None)
        if self.skills is not None:
            _require("skills", self.skills, LEAST_SKILLS, MOST_SKILLS)
        if self.end.tzinfo is None:
            raise SbError(
                f"end = {self.end.isoformat()} has no time zone",
                fix="Give an aware datetime, for example datetime(2026, 1, 1, tzinfo=UTC).",
            )

    @property
    def begin(self) -> datetime:
        """Start of the range, in UTC."""
        return self.end.astimezone(UTC) - timedelta(days=self.days)

    @property
    def user_count(self) -> int:
        """`users`, or the number that suits `n`: sessions enough for each user to have habits."""
        return self.users or max(4, min(60, self.n // 160), self.n // 200)

    @property
    def skill_count(self) -> int:
        """`skills`, or the number that suits `n`."""
        return self.skills or int(np.clip(round(40 * (self.n / 10_000) ** 0.35), LEAST_SKILLS, 200))

    @property
    def fails(self) -> bool:
        """Whether the planted failure is there; it would contradict `stationary`."""
        return self.planted_failure and not self.stationary

    @property
    def learns(self) -> bool:
        """Whether chances of success change over the days: by familiarity and by trends."""
        return self.signal and not self.stationary

    @property
    def failure_day(self) -> datetime:
        """Midnight UTC at which the failing version's rollout starts: 9 days before the end's day.

        Demos shorter than 27 days have it a third of their length before the end's day.
        """
        midnight = self.end.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        return midnight - timedelta(days=min(9, max(1, self.days // 3)))


def _require(name: str, value: int, least: int, most: int | None) -> None:
    if value < least or (most is not None and value > most):
        allowed = f"at least {least}" if most is None else f"{least} to {most}"
        raise SbError(f"{name} = {value} is out of range", fix=f"Give {allowed}.")


@dataclass(frozen=True, slots=True)
class Truth:
    """What was planted; the right answers.

    Attributes:
        skill_name: The skill that starts to fail; None when no failure is planted, like the four
            fields after it.
        day: First day of the failure, `YYYY-MM-DD`, UTC.
        cause_field: The column that explains it.
        cause_value: The value of that column; other skills run under it without harm.
        error_type: The error of the failures that it causes.
        planted_pairs: Names that share a session more often than session sizes and user groups
            explain. All belong to no cluster.
        clusters: Skill name -> cluster, for the skills that belong to one.
        user_groups: user_id -> the user's group, named by the two clusters that it prefers.
            Given the group, the calls of a session are independent but for the planted pairs.
        trends: Skill name -> logit gained (or, below 0, lost) over all days.
    """

    skill_name: str | None
    day: str | None
    cause_field: str | None
    cause_value: str | None
    error_type: str | None
    planted_pairs: tuple[tuple[str, str], ...]
    clusters: Mapping[str, str]
    user_groups: Mapping[str, tuple[str, str]]
    trends: Mapping[str, float]


def truth(plan: DemoPlan) -> Truth:
    """The planted facts of a plan, without drawing a row."""
    world = World.of(plan)
    skills, users, versions = world.skills, world.users, world.versions
    groups = [skills.groups[group] for group in users.group]
    return Truth(
        skill_name=words.FAILING_SKILL if plan.fails else None,
        day=plan.failure_day.date().isoformat() if plan.fails else None,
        cause_field="agent_version" if plan.fails else None,
        cause_value=str(versions.name[versions.failing]) if plan.fails else None,
        error_type=words.FAILING_ERROR if plan.fails else None,
        planted_pairs=words.PAIRS,
        clusters={
            str(name): cluster
            for name, cluster in zip(skills.name, skills.cluster, strict=True)
            if cluster
        },
        user_groups=dict(zip(users.id, groups, strict=True)),
        trends={str(skills.name[i]): float(skills.trend[i]) for i in np.flatnonzero(skills.trend)},
    )


class Choice:
    """Weighted draws from several lists at once, by one binary search.

    Row g of `weights` (shape: lists x items) is the distribution of list g. The cumulative rows
    are laid end to end, list g in [g, g + 1), so that a whole chunk is one `searchsorted`.
    """

    def __init__(self, weights: Array) -> None:
        cumulative = np.cumsum(weights, axis=1)
        cumulative /= cumulative[:, -1:]
        self._items = weights.shape[1]
        self._edges = (cumulative + np.arange(len(weights))[:, None]).ravel()

    def draw(self, lists: Array, uniforms: Array) -> Array:
        """One item index per element: from list `lists[i]`, by `uniforms[i]` in [0, 1)."""
        flat = np.searchsorted(self._edges, lists + uniforms, side="right")
        # Where lists + uniforms rounds up to the next whole number, keep the list's last item.
        return np.asarray(np.minimum(flat - lists * self._items, self._items - 1))


@dataclass(frozen=True, slots=True)
class Skills:
    """Per skill, in one order; skill codes are positions in these arrays.

    Attributes:
        name: Names.
        kind: Positions in `KINDS`.
        cluster: Names of the clusters, None outside.
        groups: The user groups: first and second preferred cluster.
        by_group: What the users of a group choose, one list per group.
        partner: Code of the second of a planted pair, else -1.
        failing: Code of the skill that fails.
        logit: Logit of the base rate completed / (completed + failed).
        trend: Logit gained over all days.
        median: Logarithm of the median duration in seconds.
        spread: Sigma of the duration's logarithm.
        duration_source: As in `Invocation`.
        errors: Three error types each, from frequent to rare; shape (skills, 3).
        phase: Usual phase, positions in `PHASES`.
    """

    name: Array
    kind: Array
    cluster: Array
    groups: tuple[tuple[str, str], ...]
    by_group: Choice
    partner: Array
    failing: int
    logit: Array
    trend: Array
    median: Array
    spread: Array
    duration_source: Array
    errors: Array
    phase: Array


@dataclass(frozen=True, slots=True)
class Users:
    """Per user, in the order in which they join; user codes are positions in these arrays.

    Attributes:
        id: 32 hex digits.
        group: Positions in `Skills.groups`.
        agent: Positions in `words.AGENTS`.
        lag: Seconds after a rollout at which the user has the new version.
        home: Main project, position in `projects`.
        second: The other project.
        reach: Cumulative activity, so that a draw among those who have joined is one search.
        projects: Per project, 32 hex digits.
    """

    id: Array
    group: Array
    agent: Array
    lag: Array
    home: Array
    second: Array
    reach: Array
    projects: Array


@dataclass(frozen=True, slots=True)
class Versions:
    """Versions of all agents in one list; agent a has `first[a]` to `first[a + 1]` - 1.

    Attributes:
        name: Version texts.
        since: Rollout, in seconds after the begin; ascending within an agent.
        first: Where each agent's versions begin, and the length.
        failing: Code of the version that breaks the failing skill.
    """

    name: Array
    since: Array
    first: Array
    failing: int


@dataclass(frozen=True, slots=True)
class Timeline:
    """The expected volume: `share[i]` of it lies before `edge[i]` seconds after the begin."""

    edge: Array
    share: Array

    def at(self, share: Array) -> Array:
        """Seconds after the begin at which these shares of the volume are reached."""
        return np.asarray(np.interp(share, self.share, self.edge))


@dataclass(frozen=True, slots=True)
class World:
    """Everything that is drawn once for a plan.

    Attributes:
        plan: The plan.
        begin_us: Begin in microseconds since 1970.
        span: Length in seconds.
        skills: Skills.
        users: Users and projects.
        versions: Versions of the agents.
        timeline: Expected volume over time.
        models: What the sessions of an agent choose, one list per agent.
        model_name: Shape (agents, models).
        model_logit: What a model adds to the chance of success; shape (agents, models).
    """

    plan: DemoPlan
    begin_us: int
    span: float
    skills: Skills
    users: Users
    versions: Versions
    timeline: Timeline
    models: Choice
    model_name: Array
    model_logit: Array

    @classmethod
    def of(cls, plan: DemoPlan) -> World:
        """Draw the world of a plan: a few milliseconds, and some microseconds for each user."""
        rng = np.random.default_rng([plan.seed, 0])
        models = [list(agent.models) for agent in words.AGENTS.values()]
        most = max(len(row) for row in models)
        for row in models:  # all to one length, with the last model again at no share
            row += [row[-1]._replace(share=0.0)] * (most - len(row))
        skills = _skills(plan, rng)
        return cls(
            plan=plan,
            begin_us=(plan.begin - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1),
            span=plan.days * DAY,
            skills=skills,
            users=_users(plan, len(skills.groups), rng),
            versions=_versions(plan),
            timeline=_timeline(plan, rng),
            models=Choice(np.array([[model.share for model in row] for row in models])),
            model_name=_texts([[model.name for model in row] for row in models]),
            model_logit=np.array([[model.logit for model in row] for row in models]),
        )

    def joined(self, seconds: Array) -> Array:
        """How many users are there at these times (1 or more)."""
        count = len(self.users.id)
        if self.plan.stationary:
            return np.full(len(seconds), count)
        joined = np.ceil(count * _present(seconds / self.span))
        return np.asarray(np.clip(joined, 1, count).astype(np.int64))


def kind_of(name: str) -> str:
    """The kind that a name's form stands for; the built-in tools are known by name."""
    if name in words.TOOLS:
        return "tool"
    if name.startswith("mcp__"):
        return "mcp_tool"
    return words.KIND_OF_PREFIX.get(name.partition(":")[0], "skill")


def _texts(values: object) -> Array:
    return np.array(values, dtype=object)


def _present(elapsed: Array) -> Array:
    """Share of the users who have joined, by share of the days."""
    return PRESENT_AT_START + (1.0 - PRESENT_AT_START) * elapsed


def _names(count: int) -> tuple[list[str], list[str | None]]:
    """Skill names and the clusters that they belong to: tools, shared, then the clusters'."""
    tools = int(np.clip(round(0.15 * count), words.LEAST_TOOLS, len(words.TOOLS)))
    shared = int(np.clip(round(0.2 * count), words.LEAST_SHARED, len(words.SHARED)))
    rest = count - tools - shared
    themes = list(words.THEMES)[: max(words.LEAST_THEMES, rest // 5)]
    names = [*list(words.TOOLS)[:tools], *words.SHARED[:shared]]
    clusters: list[str | None] = [None] * len(names)
    for index in range(rest):
        place, which = divmod(index, len(themes))
        theme = words.THEMES[themes[which]]
        turn, word = divmod(place, len(theme.nouns))
        # Shifted by one each turn, so that no noun meets the same act or form again too soon.
        act = words.ACTS[(place + turn) % len(words.ACTS)]
        form = words.FORMS[(place + turn) % len(words.FORMS)]
        names.append(
            form.format(noun=theme.nouns[word], act=act, theme=themes[which], server=theme.server)
        )
        clusters.append(themes[which])
    return names, clusters


def _skills(plan: DemoPlan, rng: np.random.Generator) -> Skills:
    names, clusters = _names(plan.skill_count)
    code = {name: index for index, name in enumerate(names)}
    kinds = [kind_of(name) for name in names]
    habits = [words.HABITS[kind] for kind in kinds]
    failing = code[words.FAILING_SKILL]
    rate = np.array([habit.rate for habit in habits])
    logit = np.log(rate / (1 - rate)) + rng.normal(0.0, 0.5, len(names))
    logit[failing] = np.log(0.95 / 0.05)  # clearly well before it breaks
    partner = np.full(len(names), -1)
    for first, second in words.PAIRS:
        partner[code[first]] = code[second]
    trend = np.zeros(len(names))
    if plan.learns:
        for name, direction in words.TRENDING.items():
            trend[code[name]] = TREND * direction
            logit[code[name]] = np.log(0.85 / 0.15)  # room in both directions
    errors = [rng.permutation(habit.errors)[:3] for habit in habits]
    errors[failing] = np.array(["exit_1", "timeout", "tool_error"])  # never the planted one
    themes = list(dict.fromkeys(cluster for cluster in clusters if cluster))
    groups = tuple(permutations(themes, 2))
    return Skills(
        name=_texts(names),
        kind=np.array([KINDS.index(kind) for kind in kinds]),
        cluster=_texts(clusters),
        groups=groups,
        by_group=Choice(_weights(_texts(clusters), kinds.count("tool"), groups, failing, rng)),
        partner=partner,
        failing=failing,
        logit=logit,
        trend=trend,
        median=np.log([habit.seconds for habit in habits]) + rng.normal(0.0, 0.5, len(names)),
        spread=np.array([habit.spread for habit in habits]),
        duration_source=_texts(
            [
                "gap_upper_bound" if name in words.WAITING_TOOLS else habit.duration_source
                for name, habit in zip(names, habits, strict=True)
            ]
        ),
        errors=_texts(errors),
        phase=np.array(
            [
                PHASES.index(words.PHASE_OF_NAME.get(name, habit.phase))
                for name, habit in zip(names, habits, strict=True)
            ]
        ),
    )


def _weights(
    cluster: Array,
    tools: int,
    groups: Sequence[tuple[str, str]],
    failing: int,
    rng: np.random.Generator,
) -> Array:
    """How the users of each group choose, shape (groups, skills); Zipf's law within each part."""

    def zipf(count: int, exponent: float) -> Array:
        weights = np.arange(1.0, count + 1) ** -exponent
        return np.asarray(weights / weights.sum())

    outside = sum(name is None for name in cluster)
    weights = np.zeros((len(groups), len(cluster)))
    weights[:, :tools] = TOOL_SHARE * zipf(tools, 0.9)  # in their order of fame
    weights[:, tools:outside] = SHARED_SHARE * rng.permutation(zipf(outside - tools, 0.5))
    themes = sorted({first for first, _ in groups})
    for theme in themes:
        members = cluster == theme
        within = rng.permutation(zipf(int(members.sum()), 0.8))
        for group, preferred in enumerate(groups):
            rest = (1.0 - FIRST_CLUSTER - SECOND_CLUSTER) / (len(themes) - 2)
            share = dict(zip(preferred, (FIRST_CLUSTER, SECOND_CLUSTER), strict=True))
            of_clusters = share.get(theme, rest)
            weights[group, members] = (1 - TOOL_SHARE - SHARED_SHARE) * of_clusters * within
    weights[:, failing] = FAILING_SHARE
    return weights


def _users(plan: DemoPlan, groups: int, rng: np.random.Generator) -> Users:
    count = plan.user_count
    projects = max(2, round(count**0.75))

    def spread() -> Array:
        """Evenly over [0, 1) in random order, so that shares hold with few users too."""
        return rng.permutation((np.arange(count) + 0.5) / count)

    ladder = np.cumsum([agent.share for agent in words.AGENTS.values()])[:-1]
    quick = spread()
    return Users(
        id=_hashes("user", plan.seed, count),
        group=np.floor(spread() * groups).astype(np.int64),
        agent=np.searchsorted(ladder, spread(), side="right"),
        # Most have a new version within days, the last 15 % a month later, so that old and new
        # run side by side.
        lag=np.where(quick < 0.85, -0.8 * np.log1p(-np.minimum(quick, 0.85)), 30.0) * DAY,
        home=np.floor(spread() * projects).astype(np.int64),
        second=np.floor(spread() * projects).astype(np.int64),
        reach=np.cumsum(rng.lognormal(0.0, 0.7, count)),
        projects=_hashes("project", plan.seed, projects),
    )


def _hashes(what: str, seed: int, count: int) -> Array:
    """Ids of the form that `store.identity` gives, 32 hex digits, here of invented names."""
    return _texts(
        [
            hashlib.blake2b(f"demo-{what}-{seed}-{index}".encode(), digest_size=16).hexdigest()
            for index in range(count)
        ]
    )


def _versions(plan: DemoPlan) -> Versions:
    """Rollouts, counted back from the failing one to the oldest that the slowest user can have."""
    names: list[str] = []
    since: list[float] = []
    first = [0]
    failing = -1
    failure = (plan.failure_day - plan.begin).total_seconds() / DAY
    for name, agent in words.AGENTS.items():
        # Other agents roll out on other days, so that one version alone explains the day.
        newest = failure if name == words.FAILING_AGENT else failure - agent.rollout_days / 2
        steps = int(np.ceil((newest + 31.0) / agent.rollout_days)) + 1
        names += [f"{agent.version}.{20 + step}" for step in range(steps)]
        since += [(newest - (steps - 1 - step) * agent.rollout_days) * DAY for step in range(steps)]
        first.append(len(names))
        if name == words.FAILING_AGENT:
            failing = len(names) - 1
    return Versions(_texts(names), np.array(since), np.array(first), failing)


def _timeline(plan: DemoPlan, rng: np.random.Generator) -> Timeline:
    """Hourly expected volume, integrated and scaled to 1."""
    begin, span = plan.begin, plan.days * DAY
    into_hour = begin.minute * 60.0 + begin.second + begin.microsecond / 1e6
    whole = np.arange(1, int(span // 3600) + 2) * 3600.0 - into_hour
    edge = np.concatenate([[0.0], whole[whole < span], [span]])
    hours = begin.hour + np.arange(len(edge) - 1)  # since the midnight before the begin
    days = hours // 24
    volume = np.diff(edge)
    if plan.seasons:
        weekdays = (days + begin.weekday()) % 7
        volume *= np.array(words.HOURS)[hours % 24] * np.array(words.WEEKDAYS)[weekdays]
    if not plan.stationary:
        noise = rng.lognormal(0.0, 0.08, plan.days + 1)
        volume *= noise[days] * _present(edge[:-1] / span)
    return Timeline(edge, np.concatenate([[0.0], np.cumsum(volume) / volume.sum()]))
