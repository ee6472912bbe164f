"""Prometheus text: names, types, labels, and what a real checker says."""

from __future__ import annotations

import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from sb_serving import times
from sb_serving.faces import metrics
from sb_serving.faces.metrics import FEED_METRICS, MetricsText, metrics_app
from sb_serving.frame import Frame
from tests.frame_builder import AT, anomaly, busy_frame, frame, window

PAGE = Path(__file__).parent.parent / "docs" / "metrics.md"
FEED = dict.fromkeys(FEED_METRICS, 2.0)
Labels = tuple[tuple[str, str], ...]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def render(of: Frame) -> str:
    text = MetricsText(lambda: of, lambda: FEED, lambda: times.from_text(AT))
    text.observe_tool("get_real_time_metrics", 0.002)
    return text.render().decode()


def samples(of: Frame) -> dict[str, dict[Labels, float]]:
    found: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(render(of)):
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            found.setdefault(sample.name.removeprefix("session_buddy_"), {})[labels] = sample.value
    return found


def one(of: Frame, name: str) -> float:
    values = samples(of)[name]
    assert list(values) == [()]
    return values[()]


def test_invocations_are_counters_by_skill_kind_phase_and_outcome() -> None:
    counts = samples(frame())["skill_invocations_total"]
    labels = {
        "skill_name": "commit",
        "kind": "skill",
        "workflow_phase": "execution",
        "outcome": "failed",
    }
    assert counts[tuple(sorted(labels.items()))] == 5
    assert sum(counts.values()) == frame().total_invocations


def test_durations_are_one_histogram_per_skill_over_outcomes_and_phases() -> None:
    found = samples(frame())
    buckets = {
        dict(labels)["le"]: n
        for labels, n in found["skill_duration_seconds_bucket"].items()
        if dict(labels)["skill_name"] == "commit"
    }
    assert buckets == {
        "0.1": 0, "0.5": 5, "1.0": 5, "2.0": 35, "5.0": 35, "10.0": 35, "30.0": 35, "60.0": 35,
        "300.0": 35, "+Inf": 35,
    }  # fmt: skip
    key = (("skill_name", "commit"),)
    assert found["skill_duration_seconds_count"][key] == 35
    assert found["skill_duration_seconds_sum"][key] == pytest.approx(30 * 1.5 + 5 * 0.3)
    assert (("skill_name", "review"),) not in found["skill_duration_seconds_count"]


def test_a_rejection_does_not_lower_the_completion_ratio() -> None:
    day = (
        window("commit", completed=3, failed=1, rejected=6),
        window("review", completed=0, failed=0, no_result=2),
    )
    assert samples(frame(day=day))["skill_completion_ratio"] == {(("skill_name", "commit"),): 0.75}


def test_window_values_are_gauges_for_the_hour_and_the_day() -> None:
    of = frame(day=(window("commit", completed=9, failed=1),))
    values = samples(of)["skill_window_invocations"]
    assert values[(("skill_name", "commit"), ("window", "1h"))] == 4
    assert values[(("skill_name", "commit"), ("window", "24h"))] == 10
    assert "# TYPE session_buddy_skill_window_invocations gauge" in render(of)


def test_open_anomalies_by_type_with_zeros() -> None:
    of = frame(anomalies=(anomaly(), anomaly("review"), anomaly(anomaly_type="spike")))
    assert samples(of)["anomalies"] == {
        (("anomaly_type", "drop"),): 2,
        (("anomaly_type", "spike"),): 1,
        (("anomaly_type", "pattern_shift"),): 0,
    }


def test_age_and_position_of_the_data() -> None:
    of = frame(at="2026-11-22T11:59:57.500000+00:00")
    published = datetime(2026, 11, 22, 11, 55, tzinfo=UTC).timestamp()
    assert one(of, "snapshot_timestamp_seconds") == published
    assert one(of, "snapshot_number") == 7
    assert one(of, "last_event_id") == 100
    assert one(of, "tail_lag_seconds") == 2.5
    assert one(of, "stale") == 0
    assert one(of.stale("the database is gone"), "stale") == 1


def test_without_a_snapshot_its_metrics_have_no_sample() -> None:
    found = samples(frame(snapshot_number=None, snapshot_published_at=None))
    assert "snapshot_number" not in found
    assert "snapshot_timestamp_seconds" not in found


def test_feed_and_tools_report_on_themselves() -> None:
    found = samples(frame())
    assert all(found[name] == {(): 2.0} for name in FEED_METRICS)
    tool = (("tool", "get_real_time_metrics"),)
    assert found["query_duration_seconds_count"] == {tool: 1}
    assert found["query_duration_seconds_sum"] == {tool: 0.002}


def test_skills_beyond_the_cap_are_folded_into_other_and_nothing_is_lost() -> None:
    of = busy_frame(metrics.MAX_SKILLS + 60)
    found = samples(of)
    names = {dict(labels)["skill_name"] for labels in found["skill_invocations_total"]}
    assert len(names) == metrics.MAX_SKILLS + 1
    assert metrics.OTHER in names
    assert "skill-000" in names
    assert "skill-259" not in names
    assert one(of, "folded_skills") == 60
    assert sum(found["skill_invocations_total"].values()) == sum(t.n for t in of.totals.values())
    day = {k: v for k, v in found["skill_window_invocations"].items() if ("window", "24h") in k}
    assert sum(day.values()) == sum(w.n for w in of.day)
    assert len(render(of).splitlines()) < 4_500


def test_a_skill_that_is_really_called_other_does_not_make_a_second_series() -> None:
    of = busy_frame(metrics.MAX_SKILLS + 5)
    totals = dict(of.totals)
    totals["other", "skill", "execution", "completed"] = next(iter(totals.values()))
    text = render(frame(totals=totals))
    lines = [line.rsplit(" ", 1)[0] for line in text.splitlines()]
    assert len(lines) == len(set(lines))


def test_names_with_quotes_newlines_and_other_scripts_survive() -> None:
    name = 'a "quoted"\\ name\nof 日本'
    of = frame(day=(window(name),))
    labels = [dict(key)["skill_name"] for key in samples(of)["skill_completion_ratio"]]
    assert labels == [metrics.OTHER]  # it has no total, so it is not among the busiest
    totals = {(name, "skill", "unknown", "completed"): next(iter(frame().totals.values()))}
    of = frame(day=(window(name),), totals=totals)
    assert [dict(key)["skill_name"] for key in samples(of)["skill_completion_ratio"]] == [name]


def test_counters_do_not_carry_created_series() -> None:
    assert "_created" not in render(frame())


def test_one_frame_is_rendered_once() -> None:
    """Formatting 200 skills costs 20 ms of CPU; a scrape of the same frame is a memory write."""
    current = frame()
    text = MetricsText(lambda: current, dict, lambda: times.from_text(AT))
    first = text.render()
    assert text.render() is first
    current = frame(active_sessions=9)
    assert b"session_buddy_active_sessions 9.0" in text.render()


@pytest.mark.needs_program("promtool")
@pytest.mark.parametrize("of", [frame(), busy_frame(), Frame(at=AT)], ids=["some", "busy", "empty"])
def test_promtool_finds_nothing_to_complain_about(of: Frame) -> None:
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=render(of), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_metric_is_documented_and_every_documented_one_exists() -> None:
    exported = {
        (match[1], match[2])
        for match in re.finditer(r"^# TYPE (\w+) (\w+)$", render(frame()), flags=re.M)
    }
    documented = set(re.findall(r"^\| `(\w+)` \| (\w+) \|", PAGE.read_text(), flags=re.M))
    assert documented == exported


@pytest.mark.anyio
async def test_the_page_is_served_in_the_text_format() -> None:
    app = metrics_app(MetricsText(frame))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        response = await client.get("/metrics")
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert "session_buddy_active_sessions 3.0" in response.text
        assert (await client.post("/metrics")).status_code == 405
        assert (await client.get("/other")).status_code == 404
