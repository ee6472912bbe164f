"""The demo generator keeps its promises: form, determinism, and every planted fact."""

from __future__ import annotations

import re
import tracemalloc
from collections import Counter, defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sb_serving import events, times
from sb_serving.demo import DemoPlan, chunks, draw, invocations, truth, vocabulary, world
from sb_serving.errors import SbError

END = datetime(2026, 11, 22, 12, tzinfo=UTC)
PLAN = DemoPlan(n=60_000, seed=3, end=END, users=400, skills=90)
Columns = dict[str, Any]


def read(plan: DemoPlan) -> Columns:
    """All chunks of a plan as one."""
    parts = list(chunks(plan))
    join = {
        name: np.ma.concatenate if np.ma.isMA(one) else np.concatenate
        for name, one in parts[0].items()
    }
    return {name: join[name]([part[name] for part in parts]) for name in join}


@pytest.fixture(scope="module")
def rows() -> Columns:
    return read(PLAN)


def failure_rate(rows: Columns, where: Any) -> float:
    failed = np.sum(where & (rows["outcome"] == "failed"))
    return float(failed / np.sum(where & np.isin(rows["outcome"], ["completed", "failed"])))


def auc(label: Any, score: Any) -> float:
    """Chance that a random positive scores above a random negative; ties count half."""
    _, place, count = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]
    positives = np.sum(label)
    area = np.sum(rank[label]) - positives * (positives + 1) / 2
    return float(area / (positives * (len(label) - positives)))


# --- form ---------------------------------------------------------------------------------------


@given(
    n=st.integers(0, 400),
    seed=st.integers(0, 2**40),
    days=st.integers(2, 40),
    minutes=st.integers(0, 10_000),
    zone=st.integers(-14, 14),
    flags=st.tuples(*[st.booleans()] * 4),
)
@settings(max_examples=40, deadline=None)
def test_any_plan_gives_n_sorted_unique_calls_inside_its_range(
    n: int, seed: int, days: int, minutes: int, zone: int, flags: tuple[bool, ...]
) -> None:
    failure, signal, stationary, seasons = flags
    end = (END + timedelta(minutes=minutes)).astimezone(timezone(timedelta(hours=zone)))
    plan = DemoPlan(
        n=n,
        seed=seed,
        end=end,
        days=days,
        planted_failure=failure,
        signal=signal,
        stationary=stationary,
        seasons=seasons,
    )
    records = list(invocations(plan))
    assert [record.event_id for record in records] == [f"demo-{seed}-{i}" for i in range(n)]
    started = [record.invoked_at for record in records]
    assert started == sorted(started)
    for record in records:
        assert record.invoked_at == times.to_utc_text(record.invoked_at)
        assert plan.begin <= times.from_text(record.invoked_at)
        assert times.from_text(record.ended_at) <= end


def test_every_field_keeps_to_the_vocabulary() -> None:
    kinds = defaultdict(set)
    for record in invocations(replace(PLAN, n=3_000)):
        assert record.outcome in events.OUTCOMES
        assert record.kind in events.KINDS
        assert record.workflow_phase in (*events.PHASES, None)
        assert record.source == "demo"
        assert (record.error_type is not None) == (record.outcome == "failed")
        assert re.fullmatch("[0-9a-f]{32}", record.user_id)
        assert re.fullmatch("[0-9a-f]{32}", record.project_id or "")
        ran = record.outcome not in ("rejected", "cancelled", "no_result")
        assert (record.duration_seconds is not None) == ran
        assert (record.duration_source is not None) == ran
        assert record.duration_seconds is None or 0 < record.duration_seconds <= 900
        is_skill = record.kind == "skill"
        assert (record.trigger in ("model", "user")) == is_skill
        assert (record.tool_calls is not None) == is_skill
        if record.tool_calls is not None and record.tool_failures is not None:
            assert 0 <= record.tool_failures <= record.tool_calls
        assert record.agent
        assert record.agent_version
        assert record.model
        assert not record.phase_inferred or record.workflow_phase
        kinds[record.skill_name].add(record.kind)
    assert all(len(seen) == 1 for seen in kinds.values())


def test_the_same_plan_gives_the_same_rows_and_another_seed_gives_others() -> None:
    plan = DemoPlan(n=2_000, seed=5, end=END)
    assert list(invocations(plan)) == list(invocations(plan))
    elsewhere = replace(plan, end=END.astimezone(timezone(timedelta(hours=9))))
    assert list(invocations(plan)) == list(invocations(elsewhere))
    other = list(invocations(replace(plan, seed=6)))
    assert not {r.user_id for r in invocations(plan)} & {r.user_id for r in other}


def test_columns_and_records_are_one_draw() -> None:
    plan = DemoPlan(n=700, seed=5, end=END)
    columns = read(plan)
    for name in set(columns) - {"invoked_at", "completed", "p_completed"}:
        assert columns[name].tolist() == [getattr(record, name) for record in invocations(plan)]
    started = [times.from_text(record.invoked_at) for record in invocations(plan)]
    assert [moment.replace(tzinfo=UTC) for moment in columns["invoked_at"].tolist()] == started
    assert np.all(columns["completed"] == (columns["outcome"] == "completed"))


def test_order_and_sessions_hold_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of an hour or two, far shorter than sessions reach, are merged into one order."""
    monkeypatch.setattr(draw, "BLOCK_ROWS", 500)
    plan = DemoPlan(n=20_000, seed=2, end=END, days=4, users=50)
    parts = list(chunks(plan))
    assert len(parts) > 30
    columns = read(plan)
    assert len(set(columns["event_id"])) == plan.n
    assert np.all(np.diff(columns["invoked_at"]) >= np.timedelta64(0))
    owner = dict(zip(columns["session_id"], columns["user_id"], strict=True))
    assert columns["user_id"].tolist() == [owner[session] for session in columns["session_id"]]


def test_memory_does_not_grow_with_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draw, "BLOCK_ROWS", 2_000)

    def peak(n: int) -> int:
        tracemalloc.start()
        for _ in chunks(DemoPlan(n=n, seed=1, end=END, users=100, skills=40)):
            pass
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(2_000)  # what is loaded once
    assert peak(48_000) < 1.3 * peak(12_000)


@pytest.mark.parametrize(
    ("n", "users", "skills"),
    [(0, 4, 24), (50, 4, 24), (10_000, 60, 40), (1_000_000, 5_000, 200), (10**7, 50_000, 200)],
)
def test_users_and_skills_grow_with_the_rows(n: int, users: int, skills: int) -> None:
    plan = DemoPlan(n=n, seed=0, end=END)
    assert (plan.user_count, plan.skill_count) == (users, skills)


@pytest.mark.parametrize("skills", [world.LEAST_SKILLS, 200, world.MOST_SKILLS])
def test_skill_names_are_unique_and_carry_everything_planted(skills: int) -> None:
    plan = DemoPlan(n=0, seed=0, end=END, skills=skills)
    names = world.World.of(plan).skills.name.tolist()
    assert len(set(names)) == skills
    facts = truth(plan)
    assert {facts.skill_name, *facts.trends, *sum(facts.planted_pairs, ())} <= set(names)
    sizes = Counter(facts.clusters.values())
    assert len(sizes) >= 3
    assert min(sizes.values()) >= 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": -1}, "n = -1 is out of range. Give at least 0."),
        ({"seed": -1}, "seed = -1"),
        ({"days": 1}, "days = 1 is out of range. Give 2 to 3650."),
        ({"users": 0}, "users = 0"),
        ({"skills": 23}, "skills = 23"),
        ({"end": datetime(2026, 1, 1)}, "end = 2026-01-01T00:00:00 has no time zone"),
    ],
)
def test_an_impossible_plan_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SbError, match=re.escape(message)):
        replace(PLAN, **change)


# --- shape --------------------------------------------------------------------------------------


def test_outcomes_kinds_and_phases_come_in_believable_shares(rows: Columns) -> None:
    share = {name: np.mean(rows["outcome"] == name) for name in events.OUTCOMES}
    assert 0.80 < share["completed"] < 0.92
    assert 0.05 < share["failed"] < 0.16
    assert all(0.002 < share[name] < 0.03 for name in events.OUTCOMES[2:])
    assert set(rows["kind"]) == set(events.KINDS)
    assert {phase for phase in rows["workflow_phase"] if phase} == set(events.PHASES)
    assert 0.05 < np.mean([phase is None for phase in rows["workflow_phase"]]) < 0.2


def test_sessions_have_about_twelve_calls_one_user_one_project_one_version(rows: Columns) -> None:
    sessions = len(set(rows["session_id"]))
    assert 10 < PLAN.n / sessions < 14
    for column in ("user_id", "project_id", "agent", "agent_version", "model"):
        assert len(set(zip(rows["session_id"], rows[column], strict=True))) == sessions


def test_calls_of_a_session_follow_each_other(rows: Columns) -> None:
    """A call ends before the next of its session begins, so its failure is known in time."""
    by_session = defaultdict(list)
    length = np.ma.filled(rows["duration_seconds"], 0.0)
    start = rows["invoked_at"].astype(np.int64)
    end = start + (length * 1e6).round().astype(np.int64)
    for session, begin, finish in zip(rows["session_id"], start, end, strict=True):
        by_session[session].append((begin, finish))
    for calls in by_session.values():
        assert all(first[1] <= second[0] for first, second in pairwise(calls))


def test_volume_follows_working_hours_weekdays_and_growth(rows: Columns) -> None:
    hour = rows["invoked_at"].astype("datetime64[h]").astype(int)
    hours = np.bincount(hour % 24, minlength=24)
    assert hours[9:17].min() > 5 * hours[0:5].max()
    weekday = np.bincount((hour // 24 + 3) % 7, minlength=7)  # 1970 began on a Thursday
    assert weekday[5:].max() < 0.4 * weekday[:5].min()
    first_month = np.sum(rows["invoked_at"] < np.datetime64("2026-09-23T12:00"))
    last_month = np.sum(rows["invoked_at"] >= np.datetime64("2026-10-23T12:00"))
    assert last_month > 1.15 * first_month


def test_versions_roll_out_over_the_days_and_overlap(rows: Columns) -> None:
    mine = rows["agent"] == "claude-code"
    seen = rows["invoked_at"][mine]
    name = rows["agent_version"][mine].astype(str)
    order = sorted(set(name), key=lambda version: [int(part) for part in version.split(".")])
    assert len(order) >= 7
    first = [seen[name == version].min() for version in order[3:]]
    last = [seen[name == version].max() for version in order[3:]]
    assert first == sorted(first)
    assert all(later < end for later, end in zip(first[1:], last, strict=False))


# --- planted failure ----------------------------------------------------------------------------


def test_failure_begins_on_the_day_only_for_the_skill_under_the_version(rows: Columns) -> None:
    facts = truth(PLAN)
    assert (facts.skill_name, facts.day) == ("lint-and-fix", "2026-11-13")
    assert facts.cause_field == "agent_version"
    after = rows["invoked_at"] >= np.datetime64(facts.day)
    skill = rows["skill_name"] == facts.skill_name
    version = rows[facts.cause_field] == facts.cause_value
    assert not np.any(version & ~after)
    assert np.mean(skill) > 0.015
    assert failure_rate(rows, skill & version) > 0.7
    assert failure_rate(rows, skill & ~after) < 0.12
    assert failure_rate(rows, skill & after & ~version) < 0.2
    assert failure_rate(rows, ~skill & version) < failure_rate(rows, ~skill & ~after) + 0.03
    broken = skill & version & (rows["outcome"] == "failed")
    assert np.mean(rows["error_type"][broken] == facts.error_type) > 0.85
    assert not np.any(rows["error_type"][skill & ~version] == facts.error_type)


def test_failure_is_visible_at_ten_thousand_rows_on_any_seed() -> None:
    for seed in range(3):
        plan = DemoPlan(n=10_000, seed=seed, end=END)
        rows, facts = read(plan), truth(plan)
        skill = rows["skill_name"] == facts.skill_name
        after = rows["invoked_at"] >= np.datetime64(facts.day)
        failed = rows["outcome"] == "failed"
        assert np.sum(skill & after) >= 15
        assert np.mean(failed[skill & after]) > np.mean(failed[skill & ~after]) + 0.25


def test_neither_model_nor_user_group_explains_the_failure(rows: Columns) -> None:
    """Under the version every model and every group's users see it; the mix of models stays."""
    facts = truth(PLAN)
    hit = (rows["skill_name"] == facts.skill_name) & (rows["agent_version"] == facts.cause_value)
    first = np.array([facts.user_groups[user][0] for user in rows["user_id"]])
    for values in (rows["model"], first):
        for value in set(values[hit]):
            if np.sum(hit & (values == value)) >= 15:
                assert failure_rate(rows, hit & (values == value)) > 0.55
    mine = rows["agent"] == "claude-code"
    after = rows["invoked_at"] >= np.datetime64(facts.day)
    for model in set(rows["model"][mine]):
        now, then = (np.mean(rows["model"][mine & when] == model) for when in (after, ~after))
        assert abs(now - then) < 0.1


@pytest.mark.parametrize("change", [{"planted_failure": False}, {"stationary": True}])
def test_without_a_planted_failure_nothing_jumps(change: dict[str, Any]) -> None:
    plan = replace(PLAN, n=30_000, **change)
    facts = truth(plan)
    assert facts.skill_name is facts.day is facts.cause_field is facts.cause_value is None
    rows = read(plan)
    skill = rows["skill_name"] == vocabulary.FAILING_SKILL
    after = rows["invoked_at"] >= np.datetime64("2026-11-13")
    assert abs(failure_rate(rows, skill & after) - failure_rate(rows, skill & ~after)) < 0.1


# --- planted structure --------------------------------------------------------------------------


def together(rows: Columns) -> tuple[list[str], Any]:
    """Names, and z-scores of sharing a session against independence given the sizes."""
    names, skill = np.unique(rows["skill_name"].astype(str), return_inverse=True)
    sessions, session = np.unique(rows["session_id"].astype(str), return_inverse=True)
    used = np.zeros((len(sessions), len(names)))
    used[session, skill] = 1
    size, count = used.sum(axis=1), used.sum(axis=0)
    expected = np.outer(count, count) * np.sum(size * (size - 1)) / size.sum() ** 2
    z = (used.T @ used - expected) / np.sqrt(expected)
    np.fill_diagonal(z, np.nan)
    return names.tolist(), z


def test_pairs_outside_clusters_go_together_only_when_planted(rows: Columns) -> None:
    facts = truth(PLAN)
    names, z = together(rows)
    planted = {frozenset(pair) for pair in facts.planted_pairs}
    assert min(z[names.index(a), names.index(b)] for a, b in facts.planted_pairs) > 8
    common = [i for i, name in enumerate(names) if name not in facts.clusters]
    others = [
        z[i, j] for i in common for j in common if frozenset((names[i], names[j])) not in planted
    ]
    assert np.nanmax(others) < 5


def test_skills_of_a_cluster_go_together(rows: Columns) -> None:
    facts = truth(PLAN)
    names, z = together(rows)
    cluster = np.array([facts.clusters.get(name, "") for name in names])
    inside = (cluster[:, None] == cluster[None]) & (cluster[:, None] != "")
    across = (cluster[:, None] != cluster[None]) & (cluster[:, None] != "") & (cluster[None] != "")
    assert np.nanquantile(z[inside], 0.05) > np.nanquantile(z[across], 0.99)


def test_similar_users_foretell_new_skills_better_than_popularity(rows: Columns) -> None:
    names, skill = np.unique(rows["skill_name"].astype(str), return_inverse=True)
    users, user = np.unique(rows["user_id"].astype(str), return_inverse=True)
    early = np.arange(PLAN.n) < 0.6 * PLAN.n
    had, gets = np.zeros((2, len(users), len(names)))
    had[user[early], skill[early]] = 1
    gets[user[~early], skill[~early]] = 1
    gets *= 1 - had
    shared, size = had @ had.T, had.sum(axis=1)
    similarity = shared / np.maximum(size[:, None] + size[None] - shared, 1)
    np.fill_diagonal(similarity, 0)
    similarity[similarity < np.sort(similarity, axis=1)[:, [-40]]] = 0

    def recall(score: Any) -> float:
        best = np.argsort(-(score - 1e9 * had), axis=1)[:, :10]
        hits = np.take_along_axis(gets, best, axis=1).sum(axis=1)
        some = gets.sum(axis=1) > 0
        return float(np.mean(hits[some] / np.minimum(gets.sum(axis=1)[some], 10)))

    popularity = np.tile(had.sum(axis=0), (len(users), 1))
    assert recall(similarity @ had) > recall(popularity) + 0.02


# --- planted signal -----------------------------------------------------------------------------


def skill_rates(rows: Columns) -> Any:
    """Each row's mean outcome of its skill, over all rows."""
    _, skill = np.unique(rows["skill_name"].astype(str), return_inverse=True)
    return (np.bincount(skill, rows["completed"]) / np.bincount(skill))[skill]


def test_true_probability_is_calibrated_and_beats_the_skill_rate(rows: Columns) -> None:
    p, completed = rows["p_completed"], rows["completed"]
    for part in np.array_split(np.argsort(p), 12):
        assert abs(p[part].mean() - completed[part].mean()) < 0.03
    assert auc(completed, p) > 0.70
    assert auc(completed, p) > auc(completed, skill_rates(rows)) + 0.06


def test_without_signal_the_probability_is_the_skills_own() -> None:
    rows = read(replace(PLAN, n=20_000, signal=False, planted_failure=False))
    by_skill = defaultdict(set)
    for name, p in zip(rows["skill_name"], rows["p_completed"], strict=True):
        by_skill[name].add(p)
    assert all(len(seen) == 1 for seen in by_skill.values())
    assert not truth(replace(PLAN, signal=False)).trends


def test_probability_depends_on_nothing_but_skill_and_what_was_known_before() -> None:
    """Take from each logit what earlier rows explain: the rest is one constant per skill."""
    plan = DemoPlan(n=4_000, seed=4, end=END, users=20, planted_failure=False)
    models = {m.name: m.logit for agent in vocabulary.AGENTS.values() for m in agent.models}
    trends = truth(plan).trends
    uses: dict[tuple[str, str], int] = defaultdict(int)
    ended: dict[str, list[tuple[str, bool]]] = defaultdict(list)
    rest = defaultdict(list)
    p = read(plan)["p_completed"].tolist()
    for record, chance in zip(invocations(plan), p, strict=True):
        known = ended[record.session_id]
        assert all(end <= record.invoked_at for end, _ in known)
        start = times.from_text(record.invoked_at)
        used = uses[record.user_id, record.skill_name]
        elapsed = (start - plan.begin) / timedelta(days=plan.days) - 0.5
        decided = 1.0 - sum(vocabulary.HABITS[record.kind].others)
        explained = (
            models[record.model or ""]
            + draw.HOUR_LOGIT[start.hour]
            + draw.FAMILIAR * (np.log1p(min(used, draw.FAMILIAR_MOST)) - draw.FAMILIAR_MIDDLE)
            + draw.RECENT_FAILURE * sum(failed for _, failed in known[-draw.RECENT :])
            + trends.get(record.skill_name, 0.0) * elapsed
        )
        logit = np.log(chance / (decided - chance))
        rest[record.skill_name].append(logit - explained)
        uses[record.user_id, record.skill_name] += 1
        known.append((record.ended_at, record.outcome == "failed"))
    assert max(np.ptp(values) for values in rest.values()) < 1e-6


def test_trending_skills_get_better_and_worse() -> None:
    plan = DemoPlan(n=100_000, seed=3, end=END, skills=40)
    rows = read(plan)
    early = np.arange(plan.n) < plan.n / 3
    late = np.arange(plan.n) > plan.n * 2 / 3
    for name, change in truth(plan).trends.items():
        skill = rows["skill_name"] == name
        gained = (
            rows["p_completed"][skill & late].mean() - rows["p_completed"][skill & early].mean()
        )
        assert np.sign(gained) == np.sign(change)
        assert abs(gained) > 0.06


# --- stationary ---------------------------------------------------------------------------------


def scattered(counts: Any, rows: Columns) -> bool:
    """Whether counts of calls differ no more than calls that arrive in sessions must."""
    _, sizes = np.unique(rows["session_id"].astype(str), return_counts=True)
    per_call = np.mean(sizes**2) / np.mean(sizes)  # variance over mean of a compound Poisson
    chi2 = np.sum((counts - counts.mean()) ** 2) / (counts.mean() * per_call)
    return bool(chi2 < len(counts) + 4 * np.sqrt(2 * len(counts)))


def test_stationary_volumes_and_rates_do_not_move() -> None:
    plan = replace(PLAN, n=50_000, stationary=True, days=84)  # whole weeks
    rows = read(plan)
    week = ((rows["invoked_at"] - rows["invoked_at"][0]) // np.timedelta64(7, "D")).astype(int)
    count = np.bincount(week, minlength=12)[:12]
    assert scattered(count, rows)
    first, second = np.array_split(rows["p_completed"], 2)
    assert abs(first.mean() - second.mean()) < 0.008
    late_users = {*rows["user_id"]} - {*rows["user_id"][: plan.n // 2]}
    assert len(late_users) < 0.08 * plan.user_count
    assert not truth(plan).trends


def test_without_seasons_all_hours_are_alike() -> None:
    plan = replace(PLAN, n=50_000, stationary=True, seasons=False, days=84)
    rows = read(plan)
    hour = rows["invoked_at"].astype("datetime64[h]").astype(int)
    assert scattered(np.bincount(hour % 24), rows)
    assert scattered(np.bincount(hour // 24 % 7), rows)
    night = hour % 24 < 6
    assert abs(rows["p_completed"][night].mean() - rows["p_completed"][~night].mean()) < 0.01


def test_the_first_and_the_last_hour_are_as_full_as_any() -> None:
    """Sessions lie around their anchors, so neither edge of the range thins out or piles up."""
    plan = replace(PLAN, n=100_000, stationary=True, seasons=False, days=2)
    hour = (read(plan)["invoked_at"] - np.datetime64(plan.begin.replace(tzinfo=None))).astype(int)
    hours = np.bincount(hour // 3_600_000_000, minlength=48)
    assert len(hours) == 48
    assert abs(hours[0] / hours.mean() - 1) < 0.35
    assert abs(hours[-1] / hours.mean() - 1) < 0.35


# --- docs ---------------------------------------------------------------------------------------


def test_the_samples_of_the_page_run() -> None:
    page = Path(__file__).parent.parent / "docs" / "demo.md"
    samples = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert samples
    space: dict[str, Any] = {}
    for sample in samples:
        exec(compile(sample, str(page), "exec"), space)
