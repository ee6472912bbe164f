"""MCP and Prometheus: a call in-process and over HTTP, a scrape, and how soon `sb mcp` is ready."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any, cast

from mcp.server import MCPServer

from sb_serving.faces.mcp import build_server
from sb_serving.faces.metrics import MetricsText
from sb_serving.live import Live
from tests.bench.report import Row
from tests.frame_builder import busy_frame
from tests.serving_builder import environment, fill

TOOL = "get_real_time_metrics"
REQUEST = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "bench", "version": "1"},
    },
}


def run(scale: int = 1_000) -> list[Row]:
    """Measure the request faces.

    Args:
        scale: Calls.
    """
    return [*asyncio.run(_calls(scale)), *_scrape(), *_start()]


async def _calls(calls: int) -> list[Row]:
    frame = busy_frame(200)
    live = cast(Live, SimpleNamespace(frame=frame, latest=lambda: frame))
    empty: MCPServer[Any] = MCPServer("empty", log_level="WARNING")

    @empty.tool()
    def nothing() -> dict[str, int]:
        return {"n": 1}

    ours = await _median_ms(build_server(lambda: live), TOOL, calls)
    floor = await _median_ms(empty, "nothing", calls)
    return [
        Row(
            f"{TOOL}, called in the server, median of {calls:,}",
            ours,
            "ms",
            "a tool that does nothing",
            floor,
            "<= 0.4 ms",
            ours <= 0.4,
        )
    ]


async def _median_ms(server: MCPServer[Any], tool: str, calls: int) -> float:
    """Without a client: the SDK's own checks each result against the schema, for some 4 ms."""
    spent = []
    for _ in range(calls):
        begun = time.perf_counter()
        await server.call_tool(tool, {})
        spent.append(time.perf_counter() - begun)
    return median(spent) * 1000


def _scrape() -> list[Row]:
    frame = busy_frame(200)
    first: list[float] = []
    later: list[float] = []
    for _ in range(20):
        text = MetricsText(lambda: frame)
        for spent in (first, later):
            begun = time.thread_time()
            body = text.render()
            spent.append((time.thread_time() - begun) * 1000)
    series = sum(not line.startswith(b"#") for line in body.splitlines())
    return [
        Row(f"first scrape of a frame, 200 skills, {series:,} series, CPU", median(first), "ms"),
        Row("later scrapes of it, CPU", median(later), "ms", bar="<= 1 ms", met=median(later) <= 1),
    ]


def _start() -> list[Row]:
    """From the start of the process to the first answer."""
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder) / "skills.db")
        argv = [str(Path(sys.executable).with_name("sb")), "mcp", "--home", folder]
        walls = [_ready_seconds(argv) for _ in range(5)]
        code = "import time; c = time.process_time(); import sb_serving.faces.mcp;"
        code += "print(time.process_time() - c)"
        cpus = [
            float(
                subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
            )
            for _ in range(5)
        ]
    return [
        Row("`sb mcp`, start to first answer, least of 5", min(walls), "s"),
        Row("import of sb_serving.faces.mcp, CPU, least of 5", min(cpus), "s",
            bar="<= 1.5 s", met=min(cpus) <= 1.5),
    ]  # fmt: skip


def _ready_seconds(argv: list[str]) -> float:
    begun = time.perf_counter()
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(REQUEST) + "\n")
        process.stdin.flush()
        process.stdout.readline()
        spent = time.perf_counter() - begun
        process.stdin.close()
    return spent
