"""The predecessor's Python API for the feed, on real files and sockets."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from sb_serving.app import bind
from sb_serving.errors import SbError
from sb_serving.realtime import RealTimeMetricsServer, run_server
from sb_serving.store import Store
from tests.serving_builder import SKILLS, fill

TOKEN = "correct-horse-battery-staple"
TICK = 0.05
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A `skills.db` by itself, in no installation."""
    path = tmp_path / "project" / "skills.db"
    path.parent.mkdir()
    fill(path)
    return path


def server_of(path: Path | str | None, **options: Any) -> RealTimeMetricsServer:
    return RealTimeMetricsServer(port=0, db_path=path, update_interval=TICK, **options)


async def first_update(server: RealTimeMetricsServer) -> dict[str, Any]:
    async with asyncio.timeout(10), connect(f"ws://{server.address}") as client:
        async for text in client:
            message: dict[str, Any] = json.loads(text)
            if message["type"] == "metrics_update":
                return message
    raise AssertionError("closed without an update")


async def test_it_runs_on_a_plain_skills_db(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(plain.parent)
    async with server_of("skills.db") as server:
        update = await first_update(server)
    assert {row["skill_name"]: row["n"] for row in update["data"]["top_skills"]} == SKILLS
    assert update["data"]["anomalies"] == []


async def test_it_runs_on_the_installation_by_default(sb_home: Path) -> None:
    fill(sb_home / "skills.db", {"commit": 1})
    async with server_of(None) as server:
        assert (await first_update(server))["last_event_id"] == 1


async def test_an_empty_database_is_served_as_empty(tmp_path: Path) -> None:
    path = tmp_path / "skills.db"
    Store.open(path, create=True).close()
    async with server_of(path) as server:
        update = await first_update(server)
    assert update["data"] == {"top_skills": [], "anomalies": []}
    assert (update["n"], update["last_event_at"]) == (0, None)


async def test_start_and_stop_can_be_repeated(plain: Path) -> None:
    server = server_of(plain)
    await server.stop()
    for _ in range(2):
        await server.start()
        await server.start()
        await first_update(server)
        await server.stop()
        assert not server.running
        await server.stop()


async def test_stop_does_not_wait_for_the_next_update(plain: Path) -> None:
    """The predecessor's stop() waited for a full interval."""
    server = RealTimeMetricsServer(port=0, db_path=plain, update_interval=60)
    await server.start()
    async with asyncio.timeout(3):
        await server.stop()


async def test_a_taken_port_leaves_nothing_running(plain: Path) -> None:
    """The predecessor raised, but stayed "running" and went on broadcasting."""
    with bind("feed", "127.0.0.1:0") as taken:
        server = RealTimeMetricsServer(port=taken.getsockname()[1], db_path=plain)
        before = asyncio.all_tasks()
        with pytest.raises(SbError, match="is in use"):
            await server.start()
        assert not server.running
        assert asyncio.all_tasks() == before


async def test_a_missing_database_is_named_and_not_created(tmp_path: Path) -> None:
    path = tmp_path / "skills.db"
    with pytest.raises(SbError, match="there is no database"):
        await server_of(path).start()
    assert not path.exists()


async def test_authentication_that_is_asked_for_and_not_available_fails(plain: Path) -> None:
    """The predecessor went on without authentication, silently."""
    with pytest.raises(SbError, match="require_auth = True") as caught:
        server_of(plain, require_auth=True)
    assert "SB_TOKEN_FILE" in caught.value.fix


async def test_with_authentication_the_token_is_required(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token.txt"
    file.write_text(TOKEN)
    monkeypatch.setenv("SB_TOKEN_FILE", str(file))
    async with server_of(plain, require_auth=True) as server:
        async with connect(f"ws://{server.address}") as client:
            await client.send(json.dumps({"type": "ping"}))
            assert json.loads(await client.recv())["code"] == "auth_failed"
            with pytest.raises(ConnectionClosed):
                await client.recv()
        async with connect(f"ws://{server.address}") as client:
            await client.send(json.dumps({"type": "auth", "token": TOKEN}))
            assert json.loads(await client.recv())["authenticated"] is True


async def test_other_machines_are_not_served_without_a_token(plain: Path) -> None:
    with pytest.raises(SbError, match="can be reached from other machines"):
        await server_of(plain, host="0.0.0.0").start()


@pytest.mark.parametrize("interval", [0, -1, float("nan"), float("inf")])
def test_an_interval_that_makes_no_sense_is_refused(interval: float) -> None:
    with pytest.raises(SbError, match="update_interval"):
        RealTimeMetricsServer(update_interval=interval)


async def test_subscribers_get_each_payload_in_a_dict_of_their_own(plain: Path) -> None:
    got: dict[str, list[dict[str, Any]]] = {"sync": [], "async": []}
    threads: list[threading.Thread] = []

    def plain_function(payload: dict[str, Any]) -> None:
        threads.append(threading.current_thread())
        got["sync"].append(payload)

    async def coroutine(payload: dict[str, Any]) -> None:
        payload["data"].clear()
        got["async"].append(payload)

    server = server_of(plain)
    server.register_metrics_subscriber(plain_function)
    async with server:
        server.register_metrics_subscriber(coroutine)
        async with asyncio.timeout(10):
            while min(map(len, got.values())) < 2:
                await asyncio.sleep(TICK / 5)
        server.unregister_metrics_subscriber(plain_function)
        server.unregister_metrics_subscriber(plain_function)
    assert all(payload["data"]["top_skills"] for payload in got["sync"])
    sequences = [payload["sequence"] for payload in got["sync"]]
    assert sequences == sorted(set(sequences))
    assert threading.main_thread() not in threads


async def test_a_subscriber_that_fails_or_hangs_disturbs_nobody(
    plain: Path, caplog: pytest.LogCaptureFixture
) -> None:
    started = asyncio.Event()

    def fails(payload: dict[str, Any]) -> None:
        raise ValueError("a bug of theirs")

    async def hangs(payload: dict[str, Any]) -> None:
        started.set()
        await asyncio.Event().wait()

    server = server_of(plain)
    server.register_metrics_subscriber(fails)
    server.register_metrics_subscriber(hangs)
    async with server:
        await started.wait()
        first = await first_update(server)
        assert (await first_update(server))["sequence"] > first["sequence"]
    assert "a bug of theirs" in caplog.text


async def test_run_server_serves_until_it_is_cancelled(plain: Path) -> None:
    with bind("feed", "127.0.0.1:0") as free:
        port = free.getsockname()[1]
    task = asyncio.create_task(run_server(port=port, db_path=plain, update_interval=TICK))
    async with asyncio.timeout(10):
        while True:
            try:
                async with connect(f"ws://localhost:{port}") as client:
                    assert json.loads(await client.recv())["type"] == "connected"
                    task.cancel()
                    async for _ in client:  # ends without an error on 1001
                        pass
                    break
            except ConnectionRefusedError:
                await asyncio.sleep(TICK / 5)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_end_by_itself_is_reported(plain: Path) -> None:
    server = server_of(plain)
    await server.start()

    def broken(update: object) -> None:
        raise ZeroDivisionError

    assert server._app is not None
    assert server._app.feed is not None
    server._app.feed.subscribers.insert(0, broken)
    with pytest.raises(Exception, match="the clock ended by itself"):
        await server.wait()
    assert not server.running
