"""The live feed as the predecessor's Python API: `RealTimeMetricsServer` and `run_server`.

A thin cover over `app.App` with the feed alone; the messages are described in `docs/feed.md`.
What is new against the predecessor is said in the docstrings: authentication that was asked for
and cannot be had fails, rates are fractions, a taken port leaves nothing running.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self

from sb_serving.app import App, PartEnded
from sb_serving.errors import SbError
from sb_serving.faces.feed import Update
from sb_serving.security import NEW_TOKEN
from sb_serving.settings import Settings

Subscriber = Callable[[dict[str, Any]], Awaitable[object] | object]

log = logging.getLogger(__name__)


class RealTimeMetricsServer:
    """A WebSocket server that sends the live numbers of one `skills.db` to every client.

    Args:
        host: Host to bind; anything but loopback needs a token (`SB_TOKEN_FILE`).
        port: Port; 0 takes a free one, see `address`.
        db_path: The event store; None for the one of the settings. Snapshots are looked for in
            `snapshots/` beside it.
        update_interval: Seconds between updates, above 0.
        require_auth: Whether clients must send the token of `SB_TOKEN_FILE` first.

    Raises:
        SbError: `require_auth` without a token file, an unprotected address, a bad interval.
    """

    def __init__(
        self,
        host: str = "localhost",
        port: int = 8765,
        db_path: Path | str | None = None,
        update_interval: float = 1.0,
        require_auth: bool = False,
    ) -> None:
        if not 0 < update_interval <= 3600:
            raise SbError(
                f"update_interval = {update_interval!r}", fix="Give seconds above 0, at most 3600."
            )
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        settings = dataclasses.replace(Settings.load(), feed=place)
        if db_path is not None:
            path = Path(db_path).expanduser().absolute()
            # The snapshots of another store would be added to this one's counts.
            settings = dataclasses.replace(
                settings, skills_db=path, snapshots=path.parent / "snapshots"
            )
        if require_auth and settings.token_file is None:
            raise SbError(
                "require_auth = True, but no token is configured",
                fix=f"{NEW_TOKEN.replace('add --token-file', 'set SB_TOKEN_FILE to')}",
            )
        self._settings = settings
        self._interval = update_interval
        self._app: App | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._failure: PartEnded | None = None
        self._calls: dict[Subscriber, asyncio.Task[None] | None] = {}

    @property
    def address(self) -> str:
        """`HOST:PORT` that clients reach it at; the configured one while it does not run."""
        return self._app.addresses["feed"] if self._app else self._settings.feed

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._app is not None

    async def start(self) -> None:
        """Begin to listen and to send; does nothing if it runs already.

        Raises:
            SbError: The port is taken, or there is no database. Nothing is left running then.
        """
        if self._app is not None:
            log.warning("the server runs already at %s", self.address)
            return
        app = App(self._settings, ("feed",), interval=self._interval)
        await app.__aenter__()
        if app.feed is not None:
            app.feed.subscribers.append(self._hand_on)
        self._app = app
        self._failure = None
        self._watcher = asyncio.create_task(self._watch(app))

    async def stop(self) -> None:
        """Close every connection and the port; does nothing if it does not run."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait([self._watcher])
        await self._close()

    async def wait(self) -> None:
        """Return when the server was stopped.

        Raises:
            PartEnded: It ended by itself.
        """
        if self._watcher is not None:
            await asyncio.wait([self._watcher])
        if self._failure is not None:
            raise self._failure

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        await self.stop()

    def register_metrics_subscriber(self, subscriber: Subscriber) -> None:
        """Call a function with each `metrics_update` payload, as a dict of its own.

        Args:
            subscriber: A coroutine function, or a plain one, which is called in a thread. It misses
                what comes while it is still busy; what it raises is logged.
        """
        self._calls.setdefault(subscriber, None)

    def unregister_metrics_subscriber(self, subscriber: Subscriber) -> None:
        """Stop calling a function; one that is not registered is ignored."""
        self._calls.pop(subscriber, None)

    def _hand_on(self, update: Update) -> None:
        for subscriber, call in self._calls.items():
            if call is None or call.done():
                self._calls[subscriber] = asyncio.create_task(_call(subscriber, update.message()))

    async def _watch(self, app: App) -> None:
        try:
            await app.run_until(asyncio.Event())
        except PartEnded as error:
            log.critical("%s; the server was stopped", error, exc_info=error.__cause__)
            self._failure = error
            await self._close()

    async def _close(self) -> None:
        app, self._app = self._app, None
        if app is not None:
            await app.__aexit__(None, None, None)
        calls = [call for call in self._calls.values() if call is not None]
        for call in calls:
            call.cancel()
        if calls:
            await asyncio.wait(calls)


async def _call(subscriber: Subscriber, payload: dict[str, Any]) -> None:
    try:
        if inspect.iscoroutinefunction(subscriber):
            await subscriber(payload)
            return
        result = await asyncio.to_thread(subscriber, payload)
        if inspect.isawaitable(result):
            await result
    except Exception:
        log.exception("a metrics subscriber failed")


async def run_server(
    host: str = "localhost",
    port: int = 8765,
    db_path: Path | str | None = None,
    update_interval: float = 1.0,
    require_auth: bool = False,
) -> None:
    """Serve until cancelled; the arguments are those of `RealTimeMetricsServer`.

    Raises:
        SbError: It cannot start.
        PartEnded: It ended by itself.
    """
    server = RealTimeMetricsServer(host, port, db_path, update_interval, require_auth)
    async with server:
        log.info("serving the live feed on ws://%s", server.address)
        await server.wait()
