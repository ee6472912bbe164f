"""`detect_anomalies` and `explain_anomaly`: what is listed, what is hidden, what is said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from sb_pipelines.anomalies import search
from sb_serving import demo
from sb_serving.answers.anomalies import detect_anomalies, explain_anomaly
from sb_serving.errors import SbError
from sb_serving.faces.mcp import build_server
from sb_serving.live import Live
from sb_serving.models import Anomalies, Anomaly
from tests.published_builder import NAIVE, NOW, at, published, refreshed

PLAN = demo.DemoPlan(n=9_000, seed=4, end=NOW, days=45)
BY_HAND = {
    "id": 90, "skill_name": "Bash", "metric": "volume", "anomaly_type": "spike",
    "window_start": "2026-11-21 20:00", "window_end": "2026-11-22 02:00", "n": 80,
    "baseline_value": 20.0, "observed_value": 80.0, "deviation_score": 5.0, "p_value": 1e-6,
    "q_value": 0.01, "since": "2026-11-21 20:00", "since_low": "2026-11-21 19:00",
    "since_high": "2026-11-21 20:00", "detected_at": "2026-11-21 21:00",
    "updated_at": "2026-11-22 12:00", "resolved_at": "2026-11-22 12:00", "retracted_at": None,
}  # fmt: skip
"""A row that is over."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's planted failure, and four rows by hand: over, long over, retracted, weak."""
    folder = tmp_path_factory.mktemp("published")
    warehouse = refreshed(folder, demo.invocations(PLAN))
    with warehouse.writing() as connection:
        search(connection, NAIVE)
        connection.execute("delete from skill_anomalies where metric <> 'completion'")
        long_over = {"window_start": "2026-11-12", "window_end": "2026-11-13"}
        for number, other in enumerate(
            (
                {},
                long_over,
                {"retracted_at": "2026-11-22 12:00"},
                {"deviation_score": 1.5, "metric": "duration"},
            )
        ):
            row = BY_HAND | other | {"id": 90 + number}
            listed = ", ".join(row)
            marks = ", ".join(f"${name}" for name in row)
            connection.execute(f"insert into skill_anomalies ({listed}) values ({marks})", row)
    return folder


@pytest.fixture(scope="module")
def live(folder: Path) -> Iterator[Live]:
    live = published(folder)
    yield live
    live.snapshots.close()


def test_the_answer_has_the_predecessors_fields_and_more() -> None:
    assert {"success", "timestamp", "message", "anomalies"} < set(Anomalies.model_fields)
    assert {
        "skill_name",
        "anomaly_type",
        "baseline_value",
        "observed_value",
        "deviation_score",
    } < set(Anomaly.model_fields)


def test_open_ones_come_first_and_old_or_retracted_ones_do_not(live: Live) -> None:
    answer = detect_anomalies(live)
    assert [(one.skill_name, one.open) for one in answer.anomalies] == [
        ("lint-and-fix", True),
        ("Bash", False),
    ]
    assert (answer.found, answer.below_threshold, answer.omitted) == (3, 1, 0)
    assert "1 of them below threshold 2" in answer.message
    assert "lint-and-fix, completion drop since 2026-11-1" in answer.message
    assert answer.computed_at == "2026-11-22T15:00:00.000000+00:00"


def test_the_threshold_hides_only_weaker_ones(live: Live) -> None:
    assert detect_anomalies(live, threshold=0).below_threshold == 0
    assert len(detect_anomalies(live, threshold=1.5).anomalies) == 3
    nothing = detect_anomalies(live, threshold=40)
    assert (nothing.anomalies, nothing.below_threshold) == ((), 3)


def test_the_window_is_for_those_that_are_over(live: Live) -> None:
    """An open one is listed however long ago its strongest window was."""
    assert len(detect_anomalies(live, time_window_hours=1).anomalies) == 1
    assert detect_anomalies(live, time_window_hours=24 * 30).found == 4


def test_a_limit_is_told(live: Live) -> None:
    answer = detect_anomalies(live, limit=1)
    assert (len(answer.anomalies), answer.truncated, answer.omitted) == (1, True, 1)


def test_an_explanation_names_the_planted_cause(live: Live) -> None:
    truth = demo.truth(PLAN)
    answer = explain_anomaly(live, str(truth.skill_name))
    first = answer.causes[0]
    assert (first.attribute, first.value) == (truth.cause_field, truth.cause_value)
    assert answer.symptoms[0].value == truth.error_type
    assert f"Likeliest cause: agent_version {truth.cause_value}" in answer.message
    assert f"error_type {truth.error_type}" in answer.message
    assert answer.anomaly.since_low <= answer.anomaly.since <= answer.anomaly.since_high
    assert answer.others == 0


def test_an_explanation_of_a_row_that_is_not_true_says_so(live: Live) -> None:
    answer = explain_anomaly(live, "Bash", 92)
    assert "Later events made it untrue." in answer.message
    assert "No recorded attribute moved with it." in answer.message
    assert "It is over." in explain_anomaly(live, "Bash", 90).message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"skill_name": "Read"}, "has no anomaly"),
        ({"skill_name": "lint-and-fx"}, "Did you mean lint-and-fix"),
        ({"skill_name": "Bash", "anomaly_id": 1}, "Its anomalies are: 90"),
        ({"skill_name": "Bash", "anomaly_id": 0}, "anomaly_id = 0"),
        ({"skill_name": ""}, "skill_name = ''"),
    ],
)
def test_what_cannot_be_explained_is_refused(
    live: Live, arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(SbError, match=words):
        explain_anomaly(live, **arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"threshold": -1.0}, "threshold = -1"),
        ({"threshold": float("nan")}, "threshold = nan"),
        ({"time_window_hours": 0}, "time_window_hours = 0"),
        ({"limit": 0}, "limit = 0"),
    ],
)
def test_values_out_of_range_are_refused(live: Live, arguments: Any, words: str) -> None:
    with pytest.raises(SbError, match=words):
        detect_anomalies(live, **arguments)


def test_not_computed_yet_is_no_empty_answer(tmp_path: Path) -> None:
    refreshed(tmp_path, [])
    live = published(tmp_path)
    with pytest.raises(SbError, match="skill_anomalies was not computed yet"):
        detect_anomalies(live)
    with at(tmp_path).writing() as connection:
        search(connection, NAIVE)
    live.snapshots.close()
    live = published(tmp_path)
    assert detect_anomalies(live).message.startswith("No anomaly is open")
    live.snapshots.close()


@pytest.mark.anyio
async def test_the_tools_answer(live: Live) -> None:
    async with Client(build_server(lambda: live)) as client:
        result = await client.call_tool("detect_anomalies", {})
        assert result.structured_content is not None
        (first, *_) = result.structured_content["anomalies"]
        result = await client.call_tool(
            "explain_anomaly",
            {"skill_name": first["skill_name"], "anomaly_id": first["anomaly_id"]},
        )
        assert result.structured_content is not None
        assert result.structured_content["causes"][0]["attribute"] == "agent_version"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
