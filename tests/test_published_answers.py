"""Answers out of the snapshot's result tables: rows, what is left out, what is not there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mcp import Client
from mcp.types import CallToolResult

from sb_pipelines.defs import clusters as cluster_assets
from sb_serving import demo
from sb_serving.answers.baselines import community_baselines
from sb_serving.answers.clusters import skill_clusters
from sb_serving.answers.dependencies import skill_dependencies
from sb_serving.answers.trend import skill_trend
from sb_serving.errors import SbError
from sb_serving.faces.mcp import build_server
from sb_serving.live import Live
from sb_serving.models import (
    Baseline,
    CommunityBaselines,
    Dependency,
    SkillDependencies,
    SkillTrend,
)
from tests.builders import invocation
from tests.published_builder import NAIVE, NOW, at, compute, published, refreshed

COMPUTED = "2026-11-22T15:20:00.000000+00:00"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    plan = demo.DemoPlan(n=4_000, seed=3, end=NOW, days=40)
    alone = invocation(1, skill_name="alone", session_id="alone")
    compute(refreshed(folder, [*demo.invocations(plan), alone]))
    return folder


@pytest.fixture(scope="module")
def live(folder: Path) -> Iterator[Live]:
    live = published(folder)
    yield live
    live.snapshots.close()


def stored(folder: Path, query: str) -> list[dict[str, Any]]:
    with at(folder).reading() as connection:
        found = connection.execute(query)
        names = [column[0] for column in found.description or ()]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def test_the_answers_have_the_predecessors_fields_and_more() -> None:
    """`confidence` was a p-value; it is called so now."""
    answers: dict[type, set[str]] = {
        SkillTrend: {"skill_name", "trend", "slope", "start_value", "end_value", "change_percent"},
        CommunityBaselines: {"baselines"},
        Baseline: {
            "skill_name",
            "total_users",
            "total_invocations",
            "global_completion_rate",
            "effectiveness_percentile",
        },
        SkillDependencies: {"skill_name", "dependencies"},
        Dependency: {"skill_b", "co_occurrence_count", "lift_score", "relationship_type"},
    }
    for model, names in answers.items():
        assert names < set(model.model_fields)  # type: ignore[attr-defined]
        assert "confidence" not in model.model_fields  # type: ignore[attr-defined]


# --- trend ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["completion_rate", "avg_duration_seconds", "invocation_count"])
def test_a_trend_is_its_row(live: Live, folder: Path, metric: Any) -> None:
    answer = skill_trend(live, "Bash", 30, metric)
    (row,) = stored(
        folder, f"from skill_trends where skill_name = 'Bash' and days = 30 and metric = '{metric}'"
    )
    assert row["p_value"] is not None
    for name in ("trend", "kind", "n", "slope_low", "start_high", "end_low", "p_value", "q_value"):
        assert getattr(answer, name) == row[name]
    assert answer.slope == row["slope_per_day"]
    assert (answer.timestamp, answer.computed_at) == (COMPUTED, COMPUTED)
    assert answer.source.tables == ("skill_trends",)
    assert f"n {row['n']:,}" in answer.message
    assert answer.skills > 1


def test_too_little_data_for_a_trend_is_said(live: Live, folder: Path) -> None:
    name = stored(folder, "from skill_trends where trend = 'insufficient_data' and days = 7")[0][
        "skill_name"
    ]
    answer = skill_trend(live, name)
    assert (answer.trend, answer.slope, answer.p_value) == ("insufficient_data", None, None)
    assert answer.message.startswith(f"Not enough data for {name} over 7 days: ")
    assert answer.reason is not None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("",), "skill_name = ''"),
        ((None,), "skill_name = None"),
        (("Bash", 8), r"days = 8. Expected one of 7, 14, 30, 90"),
        (("Bash", 7.0), r"days = 7\.0"),
        (("Bash", 7, "rating"), "metric = 'rating'"),
        (("bash",), r"skill_name = 'bash' was never invoked here. Did you mean Bash"),
        (("'; drop table skill_trends; --",), "was never invoked here"),
    ],
)
def test_what_a_trend_cannot_be_asked(live: Live, arguments: Any, words: str) -> None:
    with pytest.raises(SbError, match=words):
        skill_trend(live, *arguments)


# --- baselines ------------------------------------------------------------------------------------


def test_baselines_are_their_rows_best_first(live: Live, folder: Path) -> None:
    rows = stored(
        folder,
        "from skill_community_baselines where kind <> 'tool'"
        " order by global_completion_rate desc, skill_name",
    )
    answer = community_baselines(live, limit=200)
    assert [one.skill_name for one in answer.baselines] == [row["skill_name"] for row in rows]
    first = answer.baselines[0]
    assert first.completion_rate_low <= first.global_completion_rate <= first.completion_rate_high
    assert (first.min_users, answer.truncated, answer.omitted) == (5, False, 0)
    everything = community_baselines(live, limit=200, kind="all")
    assert answer.hidden_skills == everything.skills - answer.skills > 0
    cut = community_baselines(live, limit=2)
    assert cut.baselines == answer.baselines[:2]
    assert (cut.truncated, cut.omitted) == (True, answer.skills - 2)
    assert "left out by limit" in cut.message


def test_hidden_skills_are_counted_and_not_named(tmp_path: Path) -> None:
    shared = [invocation(i, skill_name="known", user_id=f"{i:032x}") for i in range(5)]
    secret = [invocation(9, skill_name="secret", user_id="f" * 32)]
    compute(refreshed(tmp_path, [*shared, *secret]))
    live = published(tmp_path)
    answer = community_baselines(live)
    assert [one.skill_name for one in answer.baselines] == ["known"]
    assert answer.skills_of_too_few_users == 1
    assert "secret" not in answer.model_dump_json()
    live.snapshots.close()


# --- dependencies ---------------------------------------------------------------------------------


def test_dependencies_are_seen_from_the_skill_that_was_asked(live: Live, folder: Path) -> None:
    (row,) = stored(
        folder,
        "from skill_dependencies where kind_a <> 'tool' and kind_b <> 'tool'"
        " and n_a <> n_b order by q_value, skill_a, skill_b limit 1",
    )
    for mine, its, n, share in (
        (row["skill_a"], row["skill_b"], row["n_a"], row["confidence_ab"]),
        (row["skill_b"], row["skill_a"], row["n_b"], row["confidence_ba"]),
    ):
        answer = skill_dependencies(live, mine, limit=200, min_lift=0.0)
        (one,) = [found for found in answer.dependencies if found.skill_b == its]
        assert (one.n_a, one.confidence_ab) == (n, share)
        assert one.confidence_ab_low < one.confidence_ab < one.confidence_ab_high
        assert one.co_occurrence_count == row["co_occurrence_count"]
        assert one.lift_low <= one.lift_score <= one.lift_high
        assert one.then_skill in (mine, its, None)


def test_what_min_lift_and_kind_leave_out_is_counted(live: Live) -> None:
    whole = skill_dependencies(live, "Bash", limit=200, min_lift=0.0, kind="all")
    assert whole.pairs == len(whole.dependencies) + whole.omitted
    strong = skill_dependencies(live, "Bash", limit=200, min_lift=1.1, kind="all")
    assert strong.below_min_lift == whole.pairs - len(strong.dependencies)
    assert all(one.lift_score >= 1.1 for one in strong.dependencies)
    default = skill_dependencies(live, "Bash", limit=200, min_lift=0.0)
    assert {one.kind for one in default.dependencies} & {"tool"} == set()
    assert default.hidden_pairs == whole.pairs - len(default.dependencies)
    assert "kind='all' shows them" in default.message


def test_expected_pairs_stand_beside_what_was_measured(tmp_path: Path) -> None:
    """`plan` and `write` share ten of twenty sessions, `plan` and `other` none."""
    recorded = [
        invocation(3 * i + n, skill_name=skill, session_id=f"s{i}")
        for i in range(20)
        for n, skill in enumerate(("plan", "write") if i < 10 else ("other",))
    ]
    warehouse = refreshed(tmp_path, recorded)
    with warehouse.writing() as connection:
        for a, b, lift in (("plan", "write", 1.8), ("other", "plan", None), ("plan", "x", 3.5)):
            connection.execute(
                "insert into expected_dependencies values (?, ?, ?, 'then')", [a, b, lift]
            )
    compute(warehouse)
    answer = skill_dependencies(published(tmp_path), "plan")
    other, write, unused = answer.expected
    assert (other.skill_b, write.skill_b, unused.skill_b) == ("other", "write", "x")
    assert (write.n_sessions, write.n_a, write.n_b, write.co_occurrence_count) == (20, 10, 10, 10)
    (measured,) = answer.dependencies
    assert (write.lift_score, write.lift_low) == (measured.lift_score, measured.lift_low)
    assert (write.lift_high, write.q_value) == (measured.lift_high, measured.q_value)
    assert write.verdict == ("found" if measured.significant else "not_enough_data")
    assert (other.lift_score, other.lift_low, other.verdict) == (0.0, 0.0, "not_found")
    assert (unused.lift_score, unused.n_b, unused.verdict) == (None, 0, "not_enough_data")
    assert "Expected with it: other not found (lift 0.00" in answer.message
    assert "x not enough data." in answer.message
    assert skill_dependencies(published(tmp_path), "x").expected[0].skill_b == "plan"


def test_a_skill_without_companions_says_so(live: Live) -> None:
    answer = skill_dependencies(live, "alone")
    assert (answer.dependencies, answer.pairs) == ((), 0)
    assert answer.message.startswith("Not enough data")
    with pytest.raises(SbError, match="was never invoked here"):
        skill_dependencies(live, "no such skill")


@pytest.mark.parametrize("value", [-0.1, float("nan"), 1e7, "2", None, True])
def test_a_lift_out_of_range_is_refused(live: Live, value: Any) -> None:
    with pytest.raises(SbError, match=r"min_lift = .*Expected a number from 0 to 1e\+06"):
        skill_dependencies(live, "Bash", min_lift=value)


# --- clusters -------------------------------------------------------------------------------------


def test_clusters_hold_their_members_and_say_how_far_to_trust_them(
    live: Live, folder: Path
) -> None:
    answer = skill_clusters(live, members=200)
    assert sum(one.skills for one in answer.clusters) == len(
        stored(folder, "from skill_cluster_membership")
    )
    for one in answer.clusters:
        assert len(one.members) == one.skills
        scores = [member.membership_score for member in one.members]
        assert scores == sorted(scores, reverse=True)
        assert one.created_at == COMPUTED
    name = answer.clusters[-1].members[0].skill_name
    (narrow,) = skill_clusters(live, members=1, skill_name=name).clusters
    assert narrow.cluster_id == answer.clusters[-1].cluster_id
    assert (len(narrow.members), narrow.omitted_members) == (1, narrow.skills - 1)
    assert answer.k == len(answer.clusters)
    with pytest.raises(SbError, match=r"members = 0. Expected a whole number from 1 to 200"):
        skill_clusters(live, members=0)
    with pytest.raises(SbError, match="was never invoked here"):
        skill_clusters(live, skill_name="no such skill")


def test_too_few_sessions_are_no_groups(tmp_path: Path) -> None:
    compute(refreshed(tmp_path, [invocation(1)]))
    live = published(tmp_path)
    answer = skill_clusters(live)
    assert (answer.clusters, answer.k, answer.structure) == ((), 0, False)
    assert answer.message == "Not enough data: no skill is in five sessions."
    assert (answer.largest_share, answer.stability) == (None, None)
    live.snapshots.close()


def test_no_structure_is_said(tmp_path: Path) -> None:
    """Sessions that hold any three of six skills."""
    rng = np.random.default_rng(5)
    recorded = [
        invocation(4 * s + i, skill_name="abcdef"[skill], session_id=f"s{s}")
        for s in range(60)
        for i, skill in enumerate(rng.permutation(6)[:3].tolist())
    ]
    warehouse = refreshed(tmp_path, recorded)
    cluster_assets.update(warehouse, NAIVE)
    live = published(tmp_path)
    answer = skill_clusters(live)
    assert answer.message.startswith("No structure: the 1 group formed on 60 sessions")
    assert (answer.structure, answer.k, answer.stability) == (False, 1, None)
    live.snapshots.close()


# --- not there yet --------------------------------------------------------------------------------


def test_what_was_not_computed_says_what_to_run(tmp_path: Path) -> None:
    """An empty list would say that nothing was found."""
    refreshed(tmp_path, [invocation(1)])
    live = published(tmp_path)
    asked: list[tuple[Any, str, str]] = [
        (lambda: skill_trend(live, "commit"), "skill_trends", "sb refresh --models"),
        (lambda: community_baselines(live), "skill_community_baselines", "sb refresh"),
        (lambda: skill_dependencies(live, "commit"), "skill_dependencies", "sb refresh --models"),
        (lambda: skill_clusters(live), "skill_clusters", "sb refresh --models"),
    ]
    for ask, table, command in asked:
        with pytest.raises(SbError, match=f"{table} was not computed yet .*Run `{command}`"):
            ask()
    for path in (tmp_path / "snapshots").glob("*.duckdb"):
        path.unlink()
    live.snapshots.close()
    with pytest.raises(SbError, match="nothing was published yet"):
        skill_trend(live, "commit")


# --- MCP ------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("get_skill_trend", {"skill_name": "Bash", "days": 30}),
        ("get_community_baselines", {"limit": 200, "kind": "all"}),
        ("get_skill_dependencies", {"skill_name": "Bash", "min_lift": 1, "kind": "all"}),
        ("get_skill_clusters", {"members": 3}),
    ],
)
async def test_tools_answer(live: Live, tool: str, arguments: dict[str, Any]) -> None:
    async with Client(build_server(lambda: live)) as client:
        result = await client.call_tool(tool, arguments)
        refused = await client.call_tool(tool, arguments | {"days": "7"})
    assert isinstance(result, CallToolResult)
    assert result.is_error is False
    assert result.structured_content is not None
    assert result.structured_content["success"] is True
    assert json.dumps(result.structured_content, allow_nan=False)
    assert refused.is_error is True


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
