"""The composed process: what it opens, what it refuses, how it ends, and that its faces agree."""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import signal
import socket
import subprocess
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import Client
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import connect
from websockets.sync.client import connect as connect_sync

from sb_serving import app as app_module
from sb_serving.app import App, PartEnded, bind, raise_file_limit
from sb_serving.errors import SbError
from sb_serving.faces.web import Status, page
from sb_serving.frame import Frame
from sb_serving.models import RealTimeMetrics
from tests.frame_builder import frame, window
from tests.serving_builder import SKILLS, environment, fill, python, settings

TOKEN = "correct-horse-battery-staple"
TICK = 0.05
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def store(sb_home: Path) -> Path:
    fill(sb_home / "skills.db")
    return sb_home / "skills.db"


@asynccontextmanager
async def running(only: tuple[str, ...] | None = None, **fields: Any) -> AsyncIterator[App]:
    async with App(settings(**fields), only, interval=TICK) as app:
        yield app


@asynccontextmanager
async def web(app: App, listener: str = "http", **headers: str) -> AsyncIterator[httpx.AsyncClient]:
    base = f"http://{app.addresses[listener]}"
    async with httpx.AsyncClient(base_url=base, headers=headers, trust_env=False) as client:
        yield client


async def updates(app: App) -> AsyncGenerator[dict[str, Any], None]:
    async with connect(f"ws://{app.addresses['feed']}") as client:
        async for text in client:
            message = json.loads(text)
            if message["type"] == "metrics_update":
                yield message


async def test_the_three_faces_agree(store: Path) -> None:
    """All three read one frame; what one says about a skill the others say too."""
    async with running() as app:
        update = await anext(updates(app))
        async with Client(f"http://{app.addresses['http']}/mcp") as client:
            result = await client.call_tool("get_real_time_metrics", {})
        async with web(app, "metrics") as http:
            text = (await http.get("/metrics")).text
    answer = RealTimeMetrics.model_validate(result.structured_content)
    families = {f.name: f for f in text_string_to_metric_families(text)}

    def exported(name: str) -> dict[str, float]:
        return {
            sample.labels["skill_name"]: sample.value
            for sample in families[f"session_buddy_{name}"].samples
            if sample.labels.get("window", "1h") == "1h"
        }

    feed_rows = {row["skill_name"]: row for row in update["data"]["top_skills"]}
    assert {name: row["n"] for name, row in feed_rows.items()} == SKILLS
    assert {skill.skill_name: skill.invocation_count for skill in answer.top_skills} == SKILLS
    assert exported("skill_window_invocations") == SKILLS
    rates = {name: row["completion_rate"] for name, row in feed_rows.items()}
    assert {skill.skill_name: skill.completion_rate for skill in answer.top_skills} == rates
    assert exported("skill_completion_ratio") == rates
    last = families["session_buddy_last_event_id"].samples[0].value
    assert update["last_event_id"] == answer.last_event_id == last == sum(SKILLS.values())


async def test_a_new_event_reaches_the_feed_and_the_sequence_rises_by_one(store: Path) -> None:
    async with running(("feed",)) as app:
        stream = updates(app)
        first = await anext(stream)
        fill(store, {"late": 1}, first=100)
        sequence = first["sequence"]
        async with asyncio.timeout(10):
            async for update in stream:
                sequence += 1
                assert update["sequence"] == sequence
                if update["last_event_id"] == first["last_event_id"] + 1:
                    break
        await stream.aclose()


async def test_readiness_says_what_is_served(store: Path) -> None:
    async with running() as app, web(app) as client:
        response = await client.get("/readyz")
        ready = response.json()
    assert response.status_code == 200
    assert ready["ready"] is True
    assert ready["last_event_id"] == sum(SKILLS.values())
    assert ready["snapshot"] == {
        "number": None, "published_at": None, "age_seconds": None, "refused": [],
    }  # fmt: skip
    assert ready["feed"]["feed_clients"] == 0
    assert ready["listeners"] == app.addresses
    assert 0 <= ready["frame_age_seconds"] < 10


async def test_while_the_database_is_away_readiness_is_503_and_the_rest_serves_on(
    store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as app, web(app) as client:
        moved = store.rename(store.with_suffix(".away"))
        async with asyncio.timeout(10):
            while (response := await client.get("/readyz")).status_code == 200:
                await asyncio.sleep(TICK)
        assert "there is no database" in response.json()["reason"]
        assert (await client.get("/healthz")).text == "ok\n"
        assert "Out of date" in (await client.get("/")).text
        stale = await anext(updates(app))
        assert "there is no database" in stale["stale_reason"]
        assert stale["n"] == sum(SKILLS.values())
        moved.rename(store)
        async with asyncio.timeout(10):
            while (await client.get("/readyz")).status_code == 503:
                await asyncio.sleep(TICK)
    assert sum("no new frame" in record.message for record in caplog.records) == 1


async def test_a_refused_snapshot_is_shown(store: Path) -> None:
    folder = store.parent / "snapshots"
    folder.mkdir()
    (folder / "000001.duckdb").write_bytes(b"not a database at all")
    async with running(("http",)) as app, web(app) as client:
        refused = (await client.get("/readyz")).json()["snapshot"]["refused"]
    assert len(refused) == 1
    assert refused[0].startswith("000001.duckdb: ")


async def test_no_snapshot_is_a_warning_that_says_what_to_run(
    store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(("metrics",)):
        pass
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "no snapshot" in warning.message
    assert "sb refresh" in warning.message


async def test_the_page_shows_names_as_text() -> None:
    hostile = frame(hour=(window("<script>alert(1)</script>"),)).stale('"><img src=x>')
    text = page(Status(hostile, (), None, {"feed": "127.0.0.1:8765"}))
    assert "<script" not in text
    assert "<img" not in text
    assert "&lt;script&gt;" in text
    empty = page(Status(Frame(at=frame().at), (), None, {}))
    assert "No invocations." in empty
    assert "no snapshot was published yet" in empty


async def test_every_page_has_a_strict_policy(store: Path) -> None:
    async with running(("http",)) as app, web(app) as client:
        for path, status in (("/", 200), ("/readyz", 200), ("/favicon.ico", 204), ("/x", 404)):
            response = await client.get(path)
            assert response.status_code == status
            assert response.headers["content-security-policy"].startswith("default-src 'none'")
            assert "server" not in response.headers


@pytest.mark.parametrize("listener", ["http", "metrics"])
async def test_foreign_names_and_pages_are_turned_away(store: Path, listener: str) -> None:
    async with running(("http", "metrics")) as app, web(app, listener) as client:
        path = "/metrics" if listener == "metrics" else "/mcp"
        assert (await client.get(path, headers={"Host": "evil.example"})).status_code == 421
        assert (await client.post(path, headers={"Origin": "null"})).status_code == 403
        evil = await client.post(path, headers={"Origin": "http://evil.example"})
        assert evil.status_code == 403


async def test_a_giant_body_is_refused(store: Path) -> None:
    async with running(("http",)) as app, web(app) as client:
        response = await client.post(
            "/mcp", content=b"x" * 70_000, headers={"content-type": "application/json"}
        )
        assert response.status_code == 413


async def test_a_token_opens_every_listener(store: Path, tmp_path: Path) -> None:
    file = tmp_path / "token.txt"
    file.write_text(TOKEN)
    async with running(token_file=file) as app:
        async with web(app) as client, web(app, "metrics") as metrics:
            assert (await client.get("/healthz")).status_code == 200
            for path in ("/", "/readyz", "/mcp"):
                assert (await client.get(path)).status_code == 401
            assert (await metrics.get("/metrics")).status_code == 401
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        async with web(app, **bearer) as client, web(app, "metrics", **bearer) as metrics:
            assert (await client.get("/readyz")).status_code == 200
            assert (await metrics.get("/metrics")).status_code == 200
        async with connect(f"ws://{app.addresses['feed']}") as socket_:
            await socket_.send(json.dumps({"type": "auth", "token": TOKEN}))
            assert json.loads(await socket_.recv())["authenticated"] is True


def test_an_address_for_others_without_a_token_is_refused(store: Path) -> None:
    with pytest.raises(SbError, match=r"http = 0\.0\.0\.0:8787"):
        App(settings(http="0.0.0.0:8787"))
    App(settings(http="0.0.0.0:8787"), ("feed",))  # not opened, so not refused


@pytest.mark.parametrize("only", [("mcp",), (), ("feed", "grafana")])
def test_a_listener_that_does_not_exist_is_refused(only: tuple[str, ...]) -> None:
    with pytest.raises(SbError, match="no such listener") as caught:
        App(settings(), only)
    assert "feed, metrics, http" in caught.value.fix


async def test_a_taken_port_leaves_nothing_open(store: Path) -> None:
    """In the predecessor the broadcaster went on without a server."""
    with bind("metrics", "127.0.0.1:0") as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        app = App(settings(metrics=address))
        with pytest.raises(SbError, match="is in use") as caught:
            await app.__aenter__()
        assert "--metrics 127.0.0.1:" in caught.value.fix
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*app.addresses["feed"].split(":"))


async def test_without_a_database_nothing_starts(sb_home: Path) -> None:
    with pytest.raises(SbError, match="there is no database at"):
        await App(settings()).__aenter__()
    assert list(sb_home.iterdir()) == []


@pytest.mark.parametrize(
    ("address", "problem"),
    [("no-such-host.invalid:80", "is unknown"), ("203.0.113.7:80", "not an address of this")],
)
def test_an_address_that_is_not_ours_is_named(address: str, problem: str) -> None:
    with pytest.raises(SbError, match=problem) as caught:
        bind("feed", address)
    assert "--feed 127.0.0.1:80" in caught.value.fix


async def test_a_part_that_ends_takes_everything_down(store: Path) -> None:
    async with running() as app:

        async def fail(_: Frame) -> None:
            raise ZeroDivisionError("a bug")

        app._pulse.receivers.append(fail)
        with pytest.raises(PartEnded, match="the clock ended by itself") as caught:
            async with asyncio.timeout(10):
                await app.run_until(asyncio.Event())
        assert isinstance(caught.value.__cause__, ZeroDivisionError)


async def test_a_slow_frame_is_not_made_up_for(store: Path) -> None:
    """sleep(1) after each frame drifts, and catching up sends bursts of old frames."""

    class Slow:
        def __init__(self) -> None:
            self.at: list[float] = []

        def tick(self) -> Frame:
            self.at.append(time.monotonic())
            if len(self.at) == 2:
                time.sleep(0.25)
            return frame()

    slow = Slow()
    pulse = app_module.Pulse(slow, interval=0.1)  # type: ignore[arg-type]
    task = asyncio.create_task(pulse.run())
    while len(slow.at) < 6:
        await asyncio.sleep(0.01)
    task.cancel()
    pulse.close()
    beats = [round((at - slow.at[0]) / 0.1, 1) for at in slow.at[:6]]
    assert beats[1] == pytest.approx(1, abs=0.5)
    assert beats[2] == pytest.approx(4, abs=0.5)  # 2 and 3 were missed, not sent late
    assert beats[5] == pytest.approx(7, abs=0.6)


def test_the_file_limit_is_raised_but_never_lowered() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        assert raise_file_limit(512) == 512
        assert raise_file_limit(300) == 512
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def served(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str], list[str]]]:
    """`sb serve` in a process of its own, once it serves; with its addresses and log."""
    command = [*python("from sb_pipelines.cli import main; main()"), "serve", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment())
    try:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if " serving " in line:
                break
        words = lines[-1].split(" serving ")[1].split(", ")
        yield process, dict(word.strip().split(" on ") for word in words), lines
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_everything_cleanly(store: Path, number: signal.Signals) -> None:
    with served() as (process, addresses, lines):
        assert set(addresses) == {"feed", "metrics", "http"}
        assert "no snapshot" in lines[0]
        with connect_sync(f"ws://{addresses['feed']}") as client:
            assert json.loads(client.recv())["type"] == "connected"
            process.send_signal(number)
            for _ in client:  # what was still on its way; ends without an error on 1001
                pass
            assert client.close_code == 1001
        _, rest = process.communicate(timeout=20)
        assert process.returncode == 0
        assert rest.strip().endswith("stopped")
        assert "Traceback" not in rest
        for address in addresses.values():
            host, port = address.split(":")
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((host, int(port)))


def test_what_the_user_can_mend_is_one_line_and_exit_code_2(sb_home: Path) -> None:
    command = [*python("from sb_pipelines.cli import main; main()"), "serve"]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(), timeout=60, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("sb: there is no database at")
    assert len(done.stderr.splitlines()) == 1


def test_a_name_from_outside_cannot_forge_a_log_line(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        app_module.log_to_stderr()
        logging.getLogger("sb_serving.test").warning("skill %s", "a\n2026 INFO forged")
    finally:
        root.handlers[:], root.level = handlers, level
        logging.getLogger("sb_serving").setLevel(logging.NOTSET)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("WARNING sb_serving.test: skill a\\n2026 INFO forged")
