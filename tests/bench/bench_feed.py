"""Fan-out of one frame to many clients, against a bare loop of writes on the same connections."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from statistics import median

from sb_serving import times
from sb_serving.app import bind, raise_file_limit
from sb_serving.faces.feed import Feed, Update
from sb_serving.frame import Frame
from sb_serving.security import Guard
from tests.bench.report import Row, peak_rss_mb
from tests.frame_builder import busy_frame

TICKS = 20

CLIENTS = """
import resource, selectors, socket, sys, time
host, port, n = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, n + 100), hard))
poll = selectors.EpollSelector()
request = (
    f"GET / HTTP/1.1\\r\\nHost: {host}:{port}\\r\\nUpgrade: websocket\\r\\n"
    "Connection: Upgrade\\r\\nSec-WebSocket-Version: 13\\r\\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n\\r\\n"
).encode()
for _ in range(n):
    sock = socket.create_connection((host, port))
    sock.sendall(request)
    head = b""
    while b"connected" not in head or not head.endswith(b"}"):
        head += sock.recv(4096)
    sock.setblocking(False)
    poll.register(sock, selectors.EVENT_READ, bytearray())
print("ready", flush=True)
got = 0
while True:
    for key, _ in poll.select():
        data = key.fileobj.recv(65536)
        if not data:
            sys.exit()
        key.data.extend(data)
        while len(key.data) >= 4 and len(key.data) >= 4 + int.from_bytes(key.data[2:4], "big"):
            del key.data[: 4 + int.from_bytes(key.data[2:4], "big")]
            got += 1
    if got >= n:
        print(time.monotonic(), flush=True)
        got -= n
"""
"""Connects n clients and prints when the last of them has a whole message, update by update."""


def run(scale: int = 1_000) -> list[Row]:
    """Measure the feed.

    Args:
        scale: Clients.
    """
    return asyncio.run(_run(scale))


async def _run(clients: int) -> list[Row]:
    raise_file_limit()
    sock = bind("feed", "127.0.0.1:0")
    port = sock.getsockname()[1]
    feed = Feed(Guard("127.0.0.1", frozenset({port})))
    await feed.start(sock)
    before = peak_rss_mb()
    child = subprocess.Popen(
        [sys.executable, "-c", CLIENTS, "127.0.0.1", str(port), str(clients)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    lines = child.stdout
    try:
        await asyncio.to_thread(lines.readline)
        while feed.counters()["feed_clients"] < clients:
            await asyncio.sleep(0.01)
        memory = (peak_rss_mb() - before) * 1000 / clients
        numbers: list[int] = [
            c.connection.transport.get_extra_info("socket").fileno() for c in feed._clients
        ]

        async def bare(frame: Frame) -> None:
            framed = Update(frame, 1).framed()
            for number in numbers:
                os.write(number, framed)

        async def measured(send: Callable[[Frame], Awaitable[None]]) -> tuple[float, float]:
            frame = replace(busy_frame(200), at=times.now_text())
            begun, cpu = time.monotonic(), time.thread_time()
            await send(frame)
            spent = time.thread_time() - cpu
            return spent * 1000, (float(await asyncio.to_thread(lines.readline)) - begun) * 1000

        ours, floor = [], []
        for _ in range(TICKS):  # alternating, so that the machine's mood is the same for both
            ours.append(await measured(feed.publish))
            floor.append(await measured(bare))
    finally:
        child.kill()
        child.wait()
        lines.close()
        await feed.stop()
    return _rows(clients, ours, floor, memory, len(Update(busy_frame(200), 1).framed()))


def _rows(
    clients: int,
    ours: list[tuple[float, float]],
    floor: list[tuple[float, float]],
    memory: float,
    size: int,
) -> list[Row]:
    cpu, least = median(c for c, _ in ours), median(c for c, _ in floor)
    last, bare_last = median(t for _, t in ours), median(t for _, t in floor)
    baseline = "building the message, then os.write per client"
    return [
        Row(
            f"CPU of one tick, {clients:,} clients, {size:,} bytes, median of {TICKS}",
            cpu,
            "ms",
            baseline,
            least,
            "<= 1.3 of the bare loop",
            cpu <= 1.3 * least,
        ),
        Row(
            "the same, least",
            min(c for c, _ in ours),
            "ms",
            baseline,
            min(c for c, _ in floor),
        ),
        Row(
            "from the frame to the last client's receipt, median",
            last,
            "ms",
            baseline,
            bare_last,
            "<= 25 ms at 1,000 clients",
            last <= 25 * max(1, clients / 1000),
        ),
        Row("the same, least", min(t for _, t in ours), "ms", baseline, min(t for _, t in floor)),
        Row("memory per client", memory, "KB", bar="<= 16 KB", met=memory <= 16),
    ]
