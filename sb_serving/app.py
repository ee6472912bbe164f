"""Composition of the online side: one process, one event loop, up to three listeners.

Assembles what the other modules offer and owns what is left: the sockets, the clock that makes a
frame each second, signals, logging. A part that ends takes the whole process down with a message;
a database that cannot be read for a while does not: the last frame is served on, marked stale.
What a listener does is in `faces/`, who may talk to it in `security.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import resource
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from sb_serving import security
from sb_serving.errors import SbError
from sb_serving.frame import Frame
from sb_serving.live import Live
from sb_serving.snapshot import SnapshotHolder
from sb_serving.store.reader import connect_readonly

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from sb_serving.faces.feed import Feed
    from sb_serving.faces.web import Status
    from sb_serving.settings import Settings

LISTENERS = ("feed", "metrics", "http")
TICK_SECONDS = 1.0
SHUTDOWN_SECONDS = 2
"""How long a stop waits for requests that are being answered."""
MAX_HTTP_CONNECTIONS = 512
OPEN_FILES = 65_536
"""Each client of the feed is an open file, and most systems start a process with 1,024."""

log = logging.getLogger(__name__)


def bind(setting: str, address: str) -> socket.socket:
    """Open a listening socket, so that a taken port shows before anything is started.

    Args:
        setting: Name of the setting, for the message.
        address: `HOST:PORT`; port 0 takes any free one.

    Raises:
        SbError: The port is taken, not ours to take, or the host is not this machine's.
    """
    host, port = security.split_address(address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise SbError(
            f"{setting} = {address}: the host {host!r} is unknown ({error.strerror})",
            fix=f"Use --{setting} 127.0.0.1:{port}.",
        ) from None
    family, kind, protocol, _, place = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(place)
        sock.listen()
    except OSError as error:
        sock.close()
        raise _bind_error(setting, address, error) from None
    sock.setblocking(False)
    return sock


def _bind_error(setting: str, address: str, error: OSError) -> SbError:
    host, _, port = address.rpartition(":")
    another = f"--{setting} {host}:{int(port) + 1 if int(port) < 65535 else 0}"
    match error.errno:
        case errno.EADDRINUSE:
            return SbError(
                f"{setting} = {address}: port {port} is in use, perhaps by another `sb serve`",
                fix=f"Stop that program (`ss -ltnp` names it), or choose another port: {another}.",
            )
        case errno.EACCES | errno.EPERM:
            return SbError(
                f"{setting} = {address}: this user may not open port {port}",
                fix=f"Choose a port above 1023: --{setting} {host}:{int(port) + 8000}.",
            )
        case errno.EADDRNOTAVAIL:
            return SbError(
                f"{setting} = {address}: {host} is not an address of this machine",
                fix=f"Use --{setting} 127.0.0.1:{port}.",
            )
        case _:
            return SbError(
                f"{setting} = {address} cannot be opened: {error}", fix=f"Try {another}."
            )


def raise_file_limit(wanted: int = OPEN_FILES) -> int:
    """Raise the soft limit of open files as far as the hard limit allows; returns the new one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < target:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
        return target
    return soft


class Pulse:
    """The clock: makes a frame at each deadline and hands it on.

    Deadlines are absolute, so that a slow frame delays one beat and not all later ones; beats that
    were missed are left out, not made up for. Frames are made in a thread of their own, as SQLite
    would hold up the event loop.

    Args:
        live: Makes the frames; marks them stale while the store cannot be read.
        interval: Seconds between beats.
    """

    def __init__(self, live: Live, interval: float = TICK_SECONDS) -> None:
        self.receivers: list[Callable[[Frame], Awaitable[object]]] = []
        """Called with each beat's frame, one after the other; none may wait for a client."""
        self._live = live
        self._interval = interval
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="sb-pulse")

    async def frame(self) -> Frame:
        """Make a frame now.

        Raises:
            SbError: The store cannot be read and never could.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, self._live.tick)

    async def run(self) -> None:
        """Beat until cancelled."""
        loop = asyncio.get_running_loop()
        deadline = loop.time()
        while True:
            frame = await self.frame()
            for receive in self.receivers:
                await receive(frame)
            missed = max(0, int((loop.time() - deadline) // self._interval))
            deadline += self._interval * (missed + 1)
            await asyncio.sleep(deadline - loop.time())

    def close(self) -> None:
        """Let the thread end; waits for a frame that is being made."""
        self._executor.shutdown()


class PartEnded(Exception):
    """A part of the process ended that never should."""


class App:
    """The listeners of one process; an async context manager.

    Args:
        settings: Addresses, files, token.
        only: Which of `LISTENERS` to open; None for all.
        interval: Seconds between frames.

    Raises:
        SbError: A listener that does not exist, an address that needs a token and has none, or a
            token file that cannot be read.
    """

    def __init__(
        self,
        settings: Settings,
        only: Collection[str] | None = None,
        *,
        interval: float = TICK_SECONDS,
    ) -> None:
        self.addresses: dict[str, str] = {}
        """Listener -> the `HOST:PORT` that it has, once started."""
        self.feed: Feed | None = None
        """The feed, once started; None where it was left out."""
        self._settings = settings
        self._names = _chosen(only)
        self._token = security.read_token(settings.token_file)
        for name in self._names:
            security.check_address(name, getattr(settings, name), self._token)
        self._snapshots = SnapshotHolder(settings.snapshots)
        self._live = Live(settings, self._snapshots)
        self._pulse = Pulse(self._live, interval)
        self._cleanup = contextlib.AsyncExitStack()
        self._parts: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        """Open everything.

        Raises:
            SbError: A port is taken, or there is no database. Nothing stays open then.
        """
        try:
            await self._start()
        except BaseException:
            await self._cleanup.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close everything: first the clock, then the listeners, then the files."""
        await self._cleanup.aclose()

    async def run_until(self, stop: asyncio.Event) -> None:
        """Return when `stop` is set.

        Raises:
            PartEnded: A part ended before; its own exception is the cause.
        """
        stopping = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait([stopping, *self._parts], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        for part in done - {stopping}:
            cause = None if part.cancelled() else part.exception()
            raise PartEnded(f"{part.get_name()} ended by itself ({cause!r})") from cause

    async def _start(self) -> None:
        self._cleanup.callback(self._snapshots.close)
        self._cleanup.callback(self._live.close)
        self._cleanup.callback(self._pulse.close)
        connect_readonly(self._settings.skills_db).close()  # no database is no reason to listen
        sockets = {name: self._bind(name) for name in self._names}
        frame = await self._pulse.frame()  # before anybody can ask for one
        if frame.snapshot_number is None:
            log.warning(
                "no snapshot in %s yet: only live numbers are served until `sb refresh` has run",
                self._settings.snapshots,
            )
        ports = frozenset(sock.getsockname()[1] for sock in sockets.values())

        def guard(name: str) -> security.Guard:
            host, _ = security.split_address(getattr(self._settings, name))
            return security.Guard(host, ports, self._token)

        # The faces are imported here because each brings its library, and `only` may leave it out.
        if "feed" in sockets:
            from sb_serving.faces.feed import Feed

            raise_file_limit()
            self.feed = Feed(guard("feed"))
            await self.feed.start(sockets["feed"])
            self._cleanup.push_async_callback(self.feed.stop)
            self._part("the feed", self.feed.wait_closed())
            self._pulse.receivers.append(self.feed.publish)
        if "metrics" in sockets or "http" in sockets:
            from sb_serving.faces.metrics import MetricsText, metrics_app

            text = MetricsText(lambda: self._live.frame, self._feed_counters)
            if "metrics" in sockets:
                self._serve_http("metrics", metrics_app(text), sockets["metrics"], guard("metrics"))
            if "http" in sockets:
                from sb_serving.faces.mcp import build_server
                from sb_serving.faces.web import OPEN_PATHS, web_app

                web = web_app(self._status, build_server(lambda: self._live, text.observe_tool))
                self._serve_http("http", web, sockets["http"], guard("http"), OPEN_PATHS)
        self._cleanup.push_async_callback(_cancel, self._part("the clock", self._pulse.run()))

    def _serve_http(
        self,
        name: str,
        app: ASGIApp,
        sock: socket.socket,
        guard: security.Guard,
        open_paths: Collection[str] = (),
    ) -> None:
        import uvicorn

        server = uvicorn.Server(
            uvicorn.Config(
                security.GuardMiddleware(app, guard, open_paths),
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                ws="none",
                lifespan="on",
                limit_concurrency=MAX_HTTP_CONNECTIONS,
                timeout_graceful_shutdown=SHUTDOWN_SECONDS,
            )
        )
        # `serve` handles the signals, for all parts.
        server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
        part = self._part(f"the {name} listener", server.serve(sockets=[sock]))

        async def stop() -> None:
            server.should_exit = True
            await asyncio.wait([part])

        self._cleanup.push_async_callback(stop)

    def _part(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a part whose end `run_until` reports."""
        part = asyncio.create_task(work, name=name)
        self._parts.append(part)
        return part

    def _bind(self, name: str) -> socket.socket:
        sock = bind(name, getattr(self._settings, name))
        self._cleanup.callback(sock.close)
        host, port = sock.getsockname()[:2]
        self.addresses[name] = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return sock

    def _feed_counters(self) -> Mapping[str, float]:
        return self.feed.counters() if self.feed else {}

    def _status(self) -> Status:
        from sb_serving.faces.web import Status

        return Status(
            self._live.frame,
            self._snapshots.refused,
            self.feed.counters() if self.feed else None,
            self.addresses,
        )


def serve(settings: Settings, only: Collection[str] | None = None) -> None:
    """Serve until SIGINT or SIGTERM, then close everything and return.

    Args:
        settings: Addresses, files, token.
        only: Which of `LISTENERS` to open; None for all.

    Raises:
        SbError: It could not start: a taken port, no database, an unprotected address.
        SystemExit: A part ended by itself; the code is 1 and the log says which.
    """
    log_to_stderr()
    try:
        asyncio.run(_serve(settings, only))
    except PartEnded as error:
        log.critical("%s; everything was stopped", error, exc_info=error.__cause__)
        raise SystemExit(1) from None


async def _serve(settings: Settings, only: Collection[str] | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with App(settings, only) as app:
        places = ", ".join(f"{name} on {address}" for name, address in app.addresses.items())
        log.info("serving %s", places)
        await app.run_until(stop)
    log.info("stopped")


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


class _OneLine(logging.Formatter):
    """One line per record, in UTC: a name from outside cannot forge a second line."""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).replace("\n", "\\n").replace("\r", "\\r")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def log_to_stderr(level: int = logging.INFO) -> None:
    """Send this program's messages from `level` on, and others' warnings, to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("sb_serving").setLevel(level)


def _chosen(only: Collection[str] | None) -> tuple[str, ...]:
    chosen = LISTENERS if only is None else tuple(name for name in LISTENERS if name in only)
    unknown = sorted(set(only or ()) - set(LISTENERS))
    if unknown or not chosen:
        raise SbError(
            f"only = {', '.join(unknown) or 'nothing'}: there is no such listener",
            fix=f"Choose from {', '.join(LISTENERS)}.",
        )
    return chosen
