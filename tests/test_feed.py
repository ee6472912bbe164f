"""The feed over real sockets: what clients get, and what one client can do to the others."""

from __future__ import annotations

import asyncio
import json
import math
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from sb_serving.app import bind
from sb_serving.faces import feed as feed_module
from sb_serving.faces import feed_protocol
from sb_serving.faces.feed import Feed, Update
from sb_serving.security import Guard
from tests.frame_builder import anomaly, busy_frame, frame, window

TOKEN = "correct-horse-battery-staple"
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def serving(token: str | None = None) -> AsyncIterator[tuple[Feed, str]]:
    sock = bind("feed", "127.0.0.1:0")
    port = sock.getsockname()[1]
    feed = Feed(Guard("127.0.0.1", frozenset({port}), token))
    await feed.start(sock)
    try:
        yield feed, f"ws://127.0.0.1:{port}"
    finally:
        await feed.stop()


async def receive(client: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(5):
        message: dict[str, Any] = json.loads(await client.recv())
        return message


async def ask(client: ClientConnection, message: object) -> dict[str, Any]:
    await client.send(json.dumps(message))
    return await receive(client)


@asynccontextmanager
async def client_of(url: str, **options: Any) -> AsyncIterator[ClientConnection]:
    async with connect(url, **options) as client:
        assert (await receive(client))["type"] == "connected"
        yield client


async def settle(feed: Feed, clients: int) -> None:
    """Until the feed has registered or forgotten its clients."""
    async with asyncio.timeout(5):
        while feed.counters()["feed_clients"] != clients:
            await asyncio.sleep(0)


async def test_a_client_is_greeted_and_gets_every_frame() -> None:
    async with serving() as (feed, url), connect(url) as client:
        greeting = await receive(client)
        assert greeting["type"] == "connected"
        assert greeting["authenticated"] is False
        assert greeting["message"]
        await settle(feed, 1)
        await feed.publish(frame())
        await feed.publish(frame(last_event_id=101))
        first, second = await receive(client), await receive(client)
        assert (first["type"], first["sequence"], second["sequence"]) == ("metrics_update", 1, 2)
        assert second["last_event_id"] == 101
        assert first["snapshot"] == 7
        assert first["watermark"] == 90
        assert first["last_event_at"] == frame().last_event_at
        assert first["timestamp"] == frame().at
        assert first["stale_reason"] is None


async def test_the_overview_has_fractions_with_their_n_and_leaves_out_tools() -> None:
    message = Update(frame(), 1).message()
    rows = {row["skill_name"]: row for row in message["data"]["top_skills"]}
    assert list(rows) == ["commit", "review"]
    commit = rows["commit"]
    assert commit["total_invocations"] == commit["n"] == 4
    assert (commit["completed"], commit["failed"], commit["completion_rate"]) == (3, 1, 0.75)
    assert 0 < commit["completion_rate_low"] < 0.75 < commit["completion_rate_high"] < 1
    assert commit["avg_duration_seconds"] == 1.5
    assert rows["review"]["avg_duration_seconds"] is None
    assert message["n"] == sum(w.n for w in frame().hour)
    assert message["data"]["anomalies"][0]["skill_name"] == "commit"
    assert message["data"]["anomalies"][0]["deviation_score"] == -5.2


async def test_the_overview_has_at_most_ten_skills_and_ten_anomalies() -> None:
    many = busy_frame(anomalies=tuple(anomaly(f"skill-{i:03d}") for i in range(30)))
    message = Update(many, 1).message()
    assert [row["skill_name"] for row in message["data"]["top_skills"]] == [
        f"skill-{i:03d}" for i in range(10)
    ]
    assert len(message["data"]["anomalies"]) == 10


async def test_a_subscriber_hears_about_its_skill_outside_the_top_ten() -> None:
    """The predecessor confirmed such a subscription and was then silent for ever."""
    async with serving() as (feed, url), client_of(url) as client:
        confirmed = await ask(client, {"type": "subscribe", "skill": "skill-250"})
        assert confirmed["type"] == "subscription_confirmed"
        await feed.publish(busy_frame(anomalies=(anomaly("skill-001"), anomaly("skill-250"))))
        update = await receive(client)
        assert [row["skill_name"] for row in update["data"]["top_skills"]] == ["skill-250"]
        assert [row["skill_name"] for row in update["data"]["anomalies"]] == ["skill-250"]
        assert update["subscriptions"] == ["skill-250"]


async def test_a_silent_skill_is_said_to_have_no_invocations() -> None:
    message = Update(frame(), 1).message(("never-heard-of", "Bash"))
    silent, bash = message["data"]["top_skills"]
    assert (silent["skill_name"], silent["n"], silent["kind"]) == ("never-heard-of", 0, None)
    assert silent["completion_rate"] is None
    assert bash["n"] == 42
    known = Update(frame(hour=()), 1).message(("commit",))
    assert known["data"]["top_skills"][0]["kind"] == "skill"


async def test_clients_with_different_subscriptions_get_different_updates() -> None:
    async with serving() as (feed, url), client_of(url) as a, client_of(url) as b:
        await ask(a, {"type": "subscribe", "skill": "commit"})
        await settle(feed, 2)
        await feed.publish(frame())
        assert len((await receive(a))["data"]["top_skills"]) == 1
        assert len((await receive(b))["data"]["top_skills"]) == 2
        assert (await ask(a, {"type": "unsubscribe"}))["type"] == "unsubscribed"
        await feed.publish(frame())
        assert len((await receive(a))["data"]["top_skills"]) == 2


async def test_one_update_is_serialised_once_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []
    dumps = json.dumps

    def counted(*args: Any, **options: Any) -> str:
        built.append(dumps(*args, **options))
        return built[-1]

    async with serving() as (feed, url), client_of(url) as a, client_of(url) as b:
        await settle(feed, 2)
        monkeypatch.setattr(json, "dumps", counted)
        await feed.publish(frame())
        assert len(built) == 1
        assert await a.recv() == await b.recv() == built[0]


async def test_what_json_cannot_say_becomes_null() -> None:
    """json.dumps would write NaN and Infinity, which every browser refuses."""
    odd = frame(
        hour=(window(duration_p95=math.inf),),
        anomalies=(anomaly(deviation_score=math.nan, baseline_value=-math.inf),),
    )
    update = Update(odd, 1)
    assert b"NaN" not in update.framed()
    assert b"Infinity" not in update.framed()
    assert update.message()["data"]["anomalies"][0]["deviation_score"] is None


@pytest.mark.parametrize("message", ["[1,2]", '"s"', "5", "null", "{", "{}", b"\x00\xff"])
async def test_malformed_messages_get_an_error_and_the_connection_lives(
    message: str | bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving() as (_, url), client_of(url) as client:
        await client.send(message)
        assert (await receive(client))["type"] == "error"
        assert (await ask(client, {"type": "ping"}))["type"] == "pong"
    assert caplog.records == []


async def test_a_message_somewhat_too_long_is_answered_and_a_giant_one_cut_off() -> None:
    async with serving() as (feed, url), client_of(url) as good:
        async with client_of(url) as client:
            assert (await ask(client, {"type": "x" * 5_000}))["code"] == "too_large"
            await client.send("x" * 1_000_000)
            with pytest.raises(ConnectionClosed):
                await receive(client)
            assert client.close_code == 1009
        await settle(feed, 1)
        assert (await ask(good, {"type": "ping"}))["type"] == "pong"


async def test_clients_that_come_and_go_during_a_broadcast_cost_nobody_a_frame() -> None:
    """In the predecessor a set that changed size during the loop lost the tick for the rest."""
    async with serving() as (feed, url), client_of(url) as steady:
        await settle(feed, 1)
        stop = asyncio.Event()

        async def churn() -> None:
            while not stop.is_set():
                async with connect(url) as client:
                    await client.recv()

        churners = [asyncio.create_task(churn()) for _ in range(5)]
        for _ in range(60):
            await feed.publish(frame())
            await asyncio.sleep(0.002)
        stop.set()
        await asyncio.gather(*churners)
        sequences = [(await receive(steady))["sequence"] for _ in range(60)]
        assert sequences == list(range(1, 61))
        assert feed.counters()["feed_connections_total"] > 5


def stalled_client(url: str) -> socket.socket:
    """A client that completes the handshake and then never reads."""
    host, _, port = url.removeprefix("ws://").rpartition(":")
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect((host, int(port)))
    sock.sendall(
        f"GET / HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    return sock


async def test_a_client_that_never_reads_is_skipped_and_cut_off_and_stalls_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The library's broadcast() buffers without bound and its keepalive never fires then.

    In the predecessor one such client stopped the updates of all others.
    """
    monkeypatch.setattr(feed_module, "STUCK_SECONDS", 0.2)
    large = frame(hour=tuple(window("s" * 2_000 + str(i)) for i in range(10)))
    async with serving() as (feed, url), client_of(url, max_queue=None) as good:
        sock = stalled_client(url)
        await settle(feed, 2)
        published = 0
        async with asyncio.timeout(30):
            while feed.counters()["feed_aborted_total"] == 0:
                await feed.publish(large)
                published += 1
                assert (await receive(good))["sequence"] == published
        await settle(feed, 1)
        sock.close()
        counters = feed.counters()
        assert counters["feed_skipped_total"] >= 2
        assert counters["feed_clients"] == 1


async def test_what_waits_for_a_stalled_client_stays_bounded() -> None:
    async with serving() as (feed, url):
        sock = stalled_client(url)
        await settle(feed, 1)
        large = frame(hour=tuple(window("s" * 2_000 + str(i)) for i in range(10)))
        while feed.counters()["feed_skipped_total"] < 50:
            await feed.publish(large)
        (client,) = feed._clients
        waiting = client.connection.transport.get_write_buffer_size()
        assert waiting <= feed_module.BUFFER_LIMIT + len(Update(large, 1).framed())
        started = asyncio.get_running_loop().time()
        await feed.stop()  # must not wait for it either
        assert asyncio.get_running_loop().time() - started < 2
        sock.close()


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"Origin": "null"}, 403), ({"Origin": "http://evil.example"}, 403),
     ({"Host": "evil.example"}, 421)],
)  # fmt: skip
async def test_foreign_pages_and_names_are_turned_away(
    headers: dict[str, str], status: int
) -> None:
    async with serving() as (_, url):
        port = url.rpartition(":")[2]
        lines = {"Host": f"127.0.0.1:{port}", **headers}
        reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
        request = "GET / HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items())
        writer.write(f"{request}Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n".encode())
        assert f" {status} ".encode() in await reader.readline()
        writer.close()
        await writer.wait_closed()


async def test_our_own_pages_may_connect() -> None:
    async with serving() as (_, url), client_of(url, origin=url.replace("ws", "http")):
        pass


async def test_a_full_house_answers_503(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "MAX_CLIENTS", 1)
    async with serving() as (_, url), client_of(url):
        with pytest.raises(InvalidStatus) as refused:
            await connect(url)
        assert refused.value.response.status_code == 503


async def test_with_a_token_the_right_first_message_opens_the_feed() -> None:
    async with serving(TOKEN) as (feed, url), connect(url) as client:
        await feed.publish(frame())
        greeting = await ask(client, {"type": "auth", "token": TOKEN})
        assert (greeting["type"], greeting["authenticated"]) == ("connected", True)
        await settle(feed, 1)
        await feed.publish(frame())
        assert (await receive(client))["sequence"] == 2  # nothing of the first came through


@pytest.mark.parametrize("message", [{"type": "auth", "token": "wrong"}, {"type": "ping"}, [1]])
async def test_with_a_token_any_other_first_message_closes_with_4001(message: object) -> None:
    async with serving(TOKEN) as (feed, url), connect(url) as client:
        assert (await ask(client, message))["code"] == "auth_failed"
        with pytest.raises(ConnectionClosed):
            await receive(client)
        assert client.close_code == 4001
        assert feed.counters()["feed_connections_total"] == 0


async def test_a_client_that_sends_no_token_is_closed_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feed_protocol, "AUTH_SECONDS", 0.05)
    async with serving(TOKEN) as (_, url), connect(url) as client:
        assert (await receive(client))["code"] == "auth_failed"
        with pytest.raises(ConnectionClosed):
            await receive(client)
        assert client.close_code == 4001


async def test_stop_closes_clients_as_going_away() -> None:
    async with serving() as (feed, url), client_of(url) as client:
        await settle(feed, 1)
        await feed.stop()
        with pytest.raises(ConnectionClosed):
            await receive(client)
        assert client.close_code == 1001


async def test_subscribers_in_this_process_get_the_update() -> None:
    async with serving() as (feed, _):
        got: list[Update] = []
        feed.subscribers.append(got.append)
        await feed.publish(frame())
        assert got[0].message()["sequence"] == 1
