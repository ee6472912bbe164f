"""The live feed: a WebSocket server that sends every frame to every client.

Sockets, the fan-out and slow clients belong here; what clients may say is in `feed_protocol.py`,
what a frame says in `frame.py` and `answers/`, the clock that makes frames in `app.py`.

A message is serialised and framed once per frame and written to each client's transport. The
library's `broadcast()` frames once per client and has no backpressure, and its keepalive never
fires for a client whose buffer is full; so a client that stops reading is skipped while more than
`BUFFER_LIMIT` bytes wait for it, and cut off after `STUCK_SECONDS`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from http import HTTPStatus
from itertools import islice
from math import isfinite
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame as WireFrame
from websockets.frames import Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State

from sb_serving import times
from sb_serving.answers import realtime
from sb_serving.faces import feed_protocol
from sb_serving.frame import Anomaly, Frame, SkillWindow
from sb_serving.security import Guard

MAX_CLIENTS = 10_000
BUFFER_LIMIT = 64 * 1024
"""Bytes waiting for a client from which on updates are skipped: it gets the newest, not all."""
STUCK_SECONDS = 10.0
"""How long a client may stay above `BUFFER_LIMIT` before it is cut off."""
YIELD_EVERY = 1_000
"""Clients written to before the event loop may do something else."""
TOP_SKILLS = 10

log = logging.getLogger(__name__)


class Update:
    """The messages of one frame: each built, serialised and framed at most once.

    Args:
        frame: The picture to send.
        sequence: Number of this update; rises by one per frame.
    """

    def __init__(self, frame: Frame, sequence: int) -> None:
        self._frame = frame
        self._sequence = sequence
        self._framed: dict[tuple[str, ...], bytes] = {}

    def message(self, subscriptions: tuple[str, ...] = ()) -> dict[str, Any]:
        """The update for a client.

        Args:
            subscriptions: The client's skills; empty for all.

        Returns:
            Without subscriptions the busiest `TOP_SKILLS` of the last hour and as many open
            anomalies; with them one row for each skill, n = 0 where it was silent, and the
            anomalies of these skills.
        """
        frame = self._frame
        if subscriptions:
            windows: Iterable[SkillWindow] = map(self._window, subscriptions)
            anomalies: Iterable[Anomaly] = (
                anomaly for anomaly in frame.anomalies if anomaly.skill_name in subscriptions
            )
        else:
            windows = realtime.of_kind(frame.hour, None)[:TOP_SKILLS]
            anomalies = frame.anomalies
        return {
            "type": "metrics_update",
            "timestamp": frame.at,
            "sequence": self._sequence,
            "snapshot": frame.snapshot_number,
            "watermark": frame.watermark_id,
            "last_event_id": frame.last_event_id,
            "last_event_at": frame.last_event_at,
            "stale_reason": frame.stale_reason,
            "n": sum(window.n for window in frame.hour),
            "active_sessions": frame.active_sessions,
            "window_hours": realtime.FRAME_HOURS,
            "subscriptions": list(subscriptions),
            "data": {
                "top_skills": [_skill_row(window) for window in windows],
                "anomalies": [_anomaly_row(anomaly) for anomaly in islice(anomalies, TOP_SKILLS)],
            },
        }

    def framed(self, subscriptions: tuple[str, ...] = ()) -> bytes:
        """The same as the bytes of one WebSocket text frame."""
        framed = self._framed.get(subscriptions)
        if framed is None:
            text = _json(self.message(subscriptions)).encode()
            framed = WireFrame(Opcode.TEXT, text).serialize(mask=False)
            self._framed[subscriptions] = framed
        return framed

    def _window(self, skill: str) -> SkillWindow:
        found = self._windows.get(skill)
        if found is not None:
            return found
        return SkillWindow(skill, self._kinds.get(skill, ""), 0, 0, 0, 0, 0, 0, 0, 0, 0.0)

    @cached_property
    def _windows(self) -> dict[str, SkillWindow]:
        return {window.skill_name: window for window in self._frame.hour}

    @cached_property
    def _kinds(self) -> dict[str, str]:
        return {skill: kind for skill, kind, _, _ in self._frame.totals}


def _skill_row(window: SkillWindow) -> dict[str, Any]:
    """A skill's last hour: the predecessor's four fields, with n, outcomes and interval."""
    metrics = realtime.skill_metrics(window)
    return _finite(
        {
            "skill_name": metrics.skill_name,
            "kind": metrics.kind or None,
            "n": metrics.invocation_count,
            "total_invocations": metrics.invocation_count,
            "completed": metrics.completed_count,
            "failed": metrics.failed_count,
            "completion_rate": metrics.completion_rate,
            "completion_rate_low": metrics.completion_rate_low,
            "completion_rate_high": metrics.completion_rate_high,
            "avg_duration_seconds": metrics.avg_duration,
            "duration_p95": metrics.duration_p95,
            "last_invocation_at": metrics.last_invocation_at,
        }
    )


def _anomaly_row(anomaly: Anomaly) -> dict[str, Any]:
    return _finite(
        {
            "skill_name": anomaly.skill_name,
            "detected_at": anomaly.detected_at,
            "anomaly_type": anomaly.anomaly_type,
            "deviation_score": anomaly.deviation_score,
            "metric": anomaly.metric,
            "n": anomaly.n,
            "baseline_value": anomaly.baseline_value,
            "observed_value": anomaly.observed_value,
            "q_value": anomaly.q_value,
            "window_start": anomaly.window_start,
            "window_end": anomaly.window_end,
        }
    )


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """The row with null for what JSON cannot say: a foreign row may hold an infinite duration."""
    return {
        name: None if isinstance(value, float) and not isfinite(value) else value
        for name, value in row.items()
    }


def _json(message: Mapping[str, Any]) -> str:
    return json.dumps(message, allow_nan=False, separators=(",", ":"))


class _Client:
    """One connection with its session; what the fan-out needs is one step away."""

    __slots__ = ("connection", "over_since", "protocol", "session", "transport")

    def __init__(self, connection: ServerConnection, session: feed_protocol.Session) -> None:
        self.connection = connection
        self.transport = connection.transport
        self.protocol = connection.protocol
        self.session = session
        self.over_since: float | None = None
        """Since when more than `BUFFER_LIMIT` bytes have waited."""


class Feed:
    """The server of one listener.

    Args:
        guard: Who may connect; with a token, clients must send it first.
    """

    def __init__(self, guard: Guard) -> None:
        self.subscribers: list[Callable[[Update], None]] = []
        """Functions of this process that get each update; none may wait."""
        self._guard = guard
        self._admits = guard.admits if guard.token is not None else None
        self._open = 0
        self._clients: set[_Client] = set()
        self._server: Server | None = None
        self._sequence = 0
        self._connections = 0
        self._skipped = 0
        self._aborted = 0
        self._fanout_seconds = 0.0

    def counters(self) -> Mapping[str, float]:
        """The feed's own numbers, under the names of `metrics.FEED_METRICS`."""
        return {
            "feed_clients": len(self._clients),
            "feed_connections_total": self._connections,
            "feed_ticks_total": self._sequence,
            "feed_skipped_total": self._skipped,
            "feed_aborted_total": self._aborted,
            "feed_fanout_seconds": self._fanout_seconds,
        }

    async def start(self, sock: socket.socket) -> None:
        """Accept clients on a bound socket."""
        self._server = await serve(
            self._handle,
            sock=sock,
            process_request=self._process_request,
            compression=None,  # at 1,000 clients deflate doubles the CPU and triples the memory
            # Four times the protocol's limit: a message somewhat too long gets an error reply,
            # a giant one is cut off (1009) before it is read.
            max_size=4 * feed_protocol.MAX_MESSAGE_BYTES,
            max_queue=4,
            ping_interval=20,
            ping_timeout=20,
            close_timeout=2,
            server_header=None,
        )

    async def wait_closed(self) -> None:
        """Return when the listener no longer accepts clients."""
        if self._server is not None:
            await self._server.wait_closed()

    async def stop(self) -> None:
        """Close the listener and every connection (code 1001)."""
        if self._server is None:
            return
        for client in self._clients:
            # Closing waits for the buffer to drain, which a stalled client never does.
            if client.transport.get_write_buffer_size():
                client.transport.abort()
        self._server.close()
        await self._server.wait_closed()

    async def publish(self, frame: Frame) -> None:
        """Send a frame to every client, then to the `subscribers`."""
        self._sequence += 1
        update = Update(frame, self._sequence)
        start = time.perf_counter()
        for number, client in enumerate(list(self._clients), 1):  # clients come and go meanwhile
            if client.transport.get_write_buffer_size() > BUFFER_LIMIT:
                self._skip(client)
            elif client.protocol.state is State.OPEN:
                client.over_since = None
                # Not `connection.send`: it frames anew for each client and waits for slow ones.
                client.transport.write(update.framed(client.session.subscriptions))
            if number % YIELD_EVERY == 0:
                await asyncio.sleep(0)
        self._fanout_seconds = time.perf_counter() - start
        for subscriber in list(self.subscribers):
            subscriber(update)

    def _skip(self, client: _Client) -> None:
        self._skipped += 1
        now = time.monotonic()
        if client.over_since is None:
            client.over_since = now
        elif now - client.over_since >= STUCK_SECONDS and not client.transport.is_closing():
            self._aborted += 1
            log.warning("cut off a feed client that did not read for %.0f s", STUCK_SECONDS)
            client.transport.abort()

    def _process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        hosts = request.headers.get_all("Host")
        origins = request.headers.get_all("Origin")
        if len(hosts) > 1 or len(origins) > 1:
            return connection.respond(HTTPStatus.BAD_REQUEST, "A header was sent twice.\n")
        refusal = self._guard.refuse_headers(
            hosts[0] if hosts else None, origins[0] if origins else None
        )
        if refusal is not None:
            return connection.respond(HTTPStatus(refusal.status), f"{refusal.reason}\n")
        if self._open >= MAX_CLIENTS:
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "Too many clients.\n")
        return None

    async def _handle(self, connection: ServerConnection) -> None:
        client = _Client(connection, feed_protocol.Session(self._admits))
        self._open += 1
        try:
            if await self._welcome(client):
                self._connections += 1
                self._clients.add(client)
                async for data in connection:
                    await _send(connection, _receive(client.session, data))
        except ConnectionClosed:
            log.debug("a client of the feed went away")
        finally:
            self._open -= 1
            self._clients.discard(client)

    async def _welcome(self, client: _Client) -> bool:
        """Greet a client, after its token where one is needed; False if it was turned away."""
        session = client.session
        if session.waiting:
            try:
                async with asyncio.timeout(feed_protocol.AUTH_SECONDS):
                    reply = _receive(session, await client.connection.recv())
            except TimeoutError:
                reply = session.auth_failed(times.now_text())
        else:
            reply = feed_protocol.Reply(session.greeting(times.now_text()))
        await _send(client.connection, reply)
        return reply.close is None


def _receive(session: feed_protocol.Session, data: str | bytes) -> feed_protocol.Reply:
    return session.receive(data, seconds=time.monotonic(), timestamp=times.now_text())


async def _send(connection: ServerConnection, reply: feed_protocol.Reply) -> None:
    await connection.send(_json(reply.message))
    if reply.close is not None:
        await connection.close(reply.close, "Authentication failed")
