"""HTTP: health, readiness, MCP, and a plain page that says what runs here.

Paths and pages belong here; the checks of Host, Origin and token are in `security.py`, the tools
behind `/mcp` in `mcp.py`. Nothing is computed: every number is read off the newest frame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from sb_serving import __version__, times
from sb_serving.faces.mcp import MAX_BODY_BYTES
from sb_serving.frame import Frame

if TYPE_CHECKING:
    from mcp.server import MCPServer
    from starlette.requests import Request

OPEN_PATHS = ("/healthz",)
"""Paths that need no token: they show nothing."""
PAGE_SKILLS = 10


@dataclass(frozen=True, slots=True)
class Status:
    """What readiness is judged by.

    Attributes:
        frame: The newest frame.
        refused: Snapshots that are newer than the one served but not good, with the reason.
        feed: The feed's counters; None where this process has no feed.
        addresses: Listener -> `HOST:PORT` of this process.
    """

    frame: Frame
    refused: tuple[str, ...]
    feed: Mapping[str, float] | None
    addresses: Mapping[str, str]


def web_app(status: Callable[[], Status], server: MCPServer[Any]) -> Starlette:
    """Build the HTTP application; its lifespan runs the MCP server's session manager.

    Args:
        status: Gives the current status.
        server: What is mounted at `/mcp`.
    """
    mcp_app = server.streamable_http_app(
        json_response=True,
        stateless_http=True,  # no session state, so any copy of this server can answer
        max_request_body_size=MAX_BODY_BYTES,
        # security.py checks Host and Origin for every path; two lists would come to disagree.
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )

    def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    def readyz(_: Request) -> Response:
        now = status()
        return JSONResponse(readiness(now), 503 if now.frame.stale_reason else 200)

    def index(_: Request) -> Response:
        return HTMLResponse(page(status()))

    def favicon(_: Request) -> Response:
        return Response(status_code=204)

    def lifespan(_: Starlette) -> AbstractAsyncContextManager[None]:
        return server.session_manager.run()  # a mounted application's own lifespan never runs

    return Starlette(
        routes=[
            Route("/", index),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/favicon.ico", favicon),
            *mcp_app.routes,
        ],
        lifespan=lifespan,
    )


def readiness(status: Status) -> dict[str, Any]:
    """The answer of `/readyz`: whether current numbers are served, and from what."""
    frame = status.frame
    return {
        "ready": frame.stale_reason is None,
        "reason": frame.stale_reason,
        "version": __version__,
        "frame_at": frame.at,
        "frame_age_seconds": _age(frame.at),
        "snapshot": {
            "number": frame.snapshot_number,
            "published_at": frame.snapshot_published_at,
            "age_seconds": _age(frame.snapshot_published_at),
            "refused": list(status.refused),
        },
        "watermark_id": frame.watermark_id,
        "last_event_id": frame.last_event_id,
        "last_event_at": frame.last_event_at,
        "feed": dict(status.feed) if status.feed is not None else None,
        "listeners": dict(status.addresses),
    }


def page(status: Status) -> str:
    """The page at `/`: numbers of the newest frame and where the other listeners are."""
    frame = status.frame
    if frame.stale_reason:
        state = f"Out of date: {frame.stale_reason}"
    elif frame.snapshot_number is None:
        state = "Live numbers only: no snapshot was published yet (run: sb refresh)"
    else:
        state = f"Live, on snapshot {frame.snapshot_number} of {frame.snapshot_published_at}"
    facts = (
        ("State", state),
        ("Numbers of", frame.at),
        ("Invocations recorded", f"{frame.total_invocations:,}"),
        ("Newest event", frame.last_event_at or "none"),
        ("Sessions active in the last 15 minutes", str(frame.active_sessions)),
        ("Open anomalies", str(len(frame.anomalies))),
    )
    rows = "".join(
        f"<tr><td>{escape(window.skill_name)}</td><td>{escape(window.kind)}</td>"
        f"<td>{window.n}</td><td>{window.completed}</td><td>{window.failed}</td></tr>"
        for window in frame.hour[:PAGE_SKILLS]
    )
    addresses = "".join(
        f"<li>{escape(text)}: <code>{escape(url)}</code></li>"
        for text, url in _links(status.addresses)
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        '<meta name="color-scheme" content="light dark">'
        "<title>Session-Buddy Analytics</title></head><body>"
        f"<h1>Session-Buddy Analytics {escape(__version__)}</h1><dl>"
        + "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts)
        + "</dl><h2>Last hour</h2>"
        + (
            "<table><caption>Busiest skills and tools</caption><thead><tr><th>Name</th>"
            "<th>Kind</th><th>Invocations</th><th>Completed</th><th>Failed</th></tr></thead>"
            f"<tbody>{rows}</tbody></table>"
            if rows
            else "<p>No invocations.</p>"
        )
        + f"<h2>Where else</h2><ul>{addresses}"
        '<li><a href="/readyz">Readiness</a>, <a href="/healthz">health</a></li></ul>'
        "</body></html>\n"
    )


def _links(addresses: Mapping[str, str]) -> list[tuple[str, str]]:
    forms = (
        ("MCP over HTTP", "http", "http://{}/mcp"),
        ("Live feed", "feed", "ws://{}"),
        ("Prometheus", "metrics", "http://{}/metrics"),
    )
    return [(text, url.format(addresses[name])) for text, name, url in forms if name in addresses]


def _age(text: str | None) -> float | None:
    if text is None:
        return None
    return round((times.now() - times.from_text(text)).total_seconds(), 3)
