"""MCP with the SDK's own client: in-process, and over stdio in a process of its own.

HTTP is in `test_app.py`, where the listener is.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from mcp import Client, StdioServerParameters
from mcp.types import CallToolResult, TextContent

from sb_serving.answers import realtime
from sb_serving.errors import SbError
from sb_serving.faces import mcp
from sb_serving.faces.mcp import OnDemand, Tools, bounded, build_server
from sb_serving.frame import Frame
from sb_serving.live import Live
from sb_serving.models import RealTimeMetrics
from tests.frame_builder import busy_frame, frame
from tests.serving_builder import SKILLS, environment, fill, python, settings

TOOL = "get_real_time_metrics"
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def showing(of: Frame) -> Live:
    """A live side that shows one frame."""
    return cast(Live, SimpleNamespace(frame=of, latest=lambda: of))


async def call(live: Live, arguments: dict[str, Any] | None = None, **mode: Any) -> CallToolResult:
    async with Client(build_server(lambda: live), **mode) as client:
        result = await client.call_tool(TOOL, arguments or {})
        assert isinstance(result, CallToolResult)
        return result


def text_of(result: CallToolResult) -> str:
    (block,) = result.content
    assert isinstance(block, TextContent)
    return block.text


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_answer_is_typed_and_the_text_says_the_same(mode: str) -> None:
    result = await call(showing(frame()), mode=mode)
    assert result.is_error is False
    answer = RealTimeMetrics.model_validate(result.structured_content)
    assert [skill.skill_name for skill in answer.top_skills] == ["commit", "review"]
    assert answer.top_skills[0].completion_rate == 0.75
    assert json.loads(text_of(result)) == result.structured_content


async def test_arguments_reach_the_answer() -> None:
    result = await call(showing(frame()), {"limit": 1, "time_window_hours": 1, "kind": "tool"})
    answer = RealTimeMetrics.model_validate(result.structured_content)
    assert [skill.skill_name for skill in answer.top_skills] == ["Bash"]
    assert answer.kind == "tool"


async def test_tools_say_what_they_are() -> None:
    async with Client(build_server(lambda: showing(frame()))) as client:
        tools = (await client.list_tools()).tools
        assert client.instructions == mcp.INSTRUCTIONS
    assert [tool.name for tool in tools] == list(Tools.TOOLS)
    for tool in tools:
        assert tool.annotations is not None
        assert tool.annotations.read_only_hint is True
        assert tool.annotations.destructive_hint is False
        assert tool.input_schema["additionalProperties"] is False
        assert tool.output_schema is not None
        assert tool.description
        assert "\n   " not in tool.description
    properties = tools[0].input_schema["properties"]
    assert list(properties) == ["limit", "time_window_hours", "kind"]
    assert all(field["description"] for field in properties.values())
    assert (properties["limit"]["minimum"], properties["limit"]["maximum"]) == (1, 200)


async def test_every_argument_is_documented_and_every_documented_one_exists() -> None:
    page = (Path(__file__).parent.parent / "docs" / "mcp.md").read_text()
    documented = set(re.findall(r"^\| `(\w+)` \| `(\w+)` \|", page, flags=re.M))
    async with Client(build_server(lambda: showing(frame()))) as client:
        tools = (await client.list_tools()).tools
    assert documented == {
        (tool.name, name) for tool in tools for name in tool.input_schema["properties"]
    }


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"limitt": 3}, "limitt"),
        ({"limit": "3"}, "limit = '3'"),
        ({"limit": "all"}, "limit"),
        ({"limit": 0}, "limit = 0"),
        ({"limit": -1}, "limit = -1"),
        ({"limit": 201}, "limit = 201"),
        ({"limit": 10**19}, "limit"),
        ({"limit": 2.5}, "limit = 2.5"),
        ({"limit": True}, "limit = True"),
        ({"limit": None}, "limit = None"),
        ({"time_window_hours": 0}, "time_window_hours = 0"),
        ({"time_window_hours": -1.0}, "time_window_hours"),
        ({"time_window_hours": 1e9}, "time_window_hours"),
        ({"time_window_hours": "1 hours') --"}, "time_window_hours"),
        ({"kind": "skills"}, "kind"),
        ({"limit": 5, "user_id": "anna", "kind": 7}, "user_id"),
    ],
)
async def test_wrong_arguments_are_refused_with_the_next_step(
    arguments: dict[str, Any], names: str
) -> None:
    """The SDK by itself drops unknown arguments and turns "3" into 3."""
    result = await call(showing(frame()), arguments)
    text = text_of(result)
    assert result.is_error is True
    assert names in text
    assert "limit, time_window_hours, kind" in text
    assert "pydantic" not in text
    assert len(text) < 600


async def test_an_unknown_tool_is_an_error() -> None:
    async with Client(build_server(lambda: showing(frame()))) as client:
        result = await client.call_tool("drop_tables", {})
        assert result.is_error is True


async def test_a_problem_that_the_user_can_mend_reaches_the_model() -> None:
    def broken() -> Live:
        raise SbError("there is no database", fix="Run `sb ingest claude-code`")

    async with Client(build_server(broken)) as client:
        result = await client.call_tool(TOOL, {})
    assert result.is_error is True
    assert text_of(result) == "there is no database. Run `sb ingest claude-code`"


async def test_a_bug_is_masked_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Live:
        raise KeyError("secret")

    async with Client(build_server(broken)) as client:
        result = await client.call_tool(TOOL, {})
    assert result.is_error is True
    assert "secret" not in text_of(result)
    assert "secret" in caplog.text


async def test_calls_are_observed_the_failing_ones_too() -> None:
    seen: list[tuple[str, float]] = []
    server = build_server(
        lambda: showing(frame()), lambda tool, seconds: seen.append((tool, seconds))
    )
    async with Client(server) as client:
        await client.call_tool(TOOL, {})
    assert [tool for tool, _ in seen] == [TOOL]
    assert seen[0][1] > 0


async def test_a_long_answer_is_cut_and_says_so() -> None:
    result = await call(showing(busy_frame(300)), {"limit": 200})
    text = text_of(result)
    answer = RealTimeMetrics.model_validate(result.structured_content)
    assert len(text.encode()) <= mcp.MAX_RESULT_BYTES
    assert len(answer.top_skills) > 30
    assert answer.truncated is True
    assert answer.omitted == 300 - len(answer.top_skills)
    assert "left out to keep this answer short" in answer.message


async def test_a_short_answer_is_left_alone() -> None:
    answer = realtime.real_time_metrics(showing(busy_frame(300)), limit=5)
    data, text = bounded(answer)
    assert data["omitted"] == 295
    assert data == json.loads(answer.model_dump_json()) == json.loads(text)


async def test_on_demand_makes_a_frame_when_the_last_is_too_old(
    sb_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(sb_home / "skills.db", {"commit": 2})
    on_demand = OnDemand(settings())
    assert on_demand().frame.total_invocations == 2
    fill(sb_home / "skills.db", {"commit": 3}, first=100)
    assert on_demand().frame.total_invocations == 2  # not a second old
    monkeypatch.setattr(mcp, "MAX_AGE_SECONDS", 0.0)
    assert on_demand().frame.total_invocations == 5
    on_demand().close()


async def test_before_anything_was_recorded_the_tool_says_what_to_do(sb_home: Path) -> None:
    """An assistant starts its servers first; the database may come later."""
    async with Client(build_server(OnDemand(settings()))) as client:
        before = await client.call_tool(TOOL, {})
        assert before.is_error is True
        assert "there is no database" in text_of(before)
        fill(sb_home / "skills.db")
        after = await client.call_tool(TOOL, {})
    assert after.is_error is False


async def test_stdio_in_a_process_of_its_own(sb_home: Path, tmp_path: Path) -> None:
    fill(sb_home / "skills.db")
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    command = python("from sb_pipelines.cli import main; main()")
    server = StdioServerParameters(
        command=command[0], args=[*command[1:], "mcp"], env=environment(), cwd=folder
    )
    async with Client(server) as client:
        hour = await client.call_tool(TOOL, {})
        days = await client.call_tool(TOOL, {"time_window_hours": 72, "kind": "subagent"})
        refused = await client.call_tool(TOOL, {"limit": 0})
    counts = {
        row["skill_name"]: row["invocation_count"] for row in hour.structured_content["top_skills"]
    }
    assert counts == SKILLS
    assert [row["skill_name"] for row in days.structured_content["top_skills"]] == [
        "agent:explorer"
    ]
    assert refused.is_error is True
    assert list(folder.iterdir()) == []


def test_nothing_but_protocol_is_written_to_stdout(sb_home: Path) -> None:
    fill(sb_home / "skills.db")
    request = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    }
    done = subprocess.run(
        [*python("from sb_pipelines.cli import main; main()"), "mcp"],
        input=f"this is not JSON\n{json.dumps(request)}\n",
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
        check=True,
    )
    messages = [json.loads(line) for line in done.stdout.splitlines()]
    assert [message["jsonrpc"] for message in messages] == ["2.0"] * len(messages)
    assert any(message.get("id") == 1 and "result" in message for message in messages)


def test_starting_loads_no_batch_library() -> None:
    code = (
        "import sys, sb_serving.faces.mcp;"
        "print([m for m in ('dagster', 'pandas', 'sklearn', 'scipy.stats') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
