"""Who may talk to a listener: address, Host, Origin and token, decided once for all three.

The rules are here; each face asks them in its own protocol (`GuardMiddleware` for HTTP, the
WebSocket handshake in `faces/feed.py`). Limits on what an admitted client may do live with the
face that it talks to.

A browser lets any page send requests to 127.0.0.1. Two checks stop such a page: its address
shows in `Origin`, and when it hides behind a name that resolves to us (DNS rebinding), the name
shows in `Host`. A program on the network is stopped by the token that every address but loopback
requires.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sb_serving.errors import SbError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
MIN_TOKEN_LENGTH = 16

NEW_TOKEN = (
    "Make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(32))' > token.txt"
    " && chmod 600 token.txt, then add --token-file token.txt."
)

RESPONSE_HEADERS = (
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)
"""On every HTTP answer that does not set its own."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is turned away: an HTTP status and one sentence."""

    status: int
    reason: str


def split_address(address: str) -> tuple[str, int]:
    """Split `HOST:PORT` or `[IPv6]:PORT`.

    Raises:
        SbError: The text has no host or no port between 0 and 65535.
    """
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise SbError(
            f"{address!r} is not an address", fix="Give HOST:PORT, for example 127.0.0.1:8765."
        )
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_token(path: Path | None) -> str | None:
    """Read the bearer token from its file.

    Args:
        path: The file, or None where no token is configured.

    Returns:
        The token without surrounding white space, or None for no file.

    Raises:
        SbError: The file cannot be read, or holds less than `MIN_TOKEN_LENGTH` characters or more
            than one word.
    """
    if path is None:
        return None
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SbError(f"token_file {path} cannot be read: {error}", fix=NEW_TOKEN) from None
    if len(token) < MIN_TOKEN_LENGTH or len(token.split()) != 1:
        raise SbError(
            f"token_file {path} must hold one word of at least {MIN_TOKEN_LENGTH} characters",
            fix=NEW_TOKEN,
        )
    return token


def check_address(setting: str, address: str, token: str | None) -> None:
    """Refuse an address that others can reach while no token protects it.

    Args:
        setting: Name of the setting, for the message.
        address: `HOST:PORT`.
        token: The configured token, if any.

    Raises:
        SbError: The address is not loopback and there is no token.
    """
    host, port = split_address(address)
    if not is_loopback(host) and token is None:
        raise SbError(
            f"{setting} = {address} can be reached from other machines and no token is set",
            fix=f"Stay local with --{setting} 127.0.0.1:{port}, or protect it. {NEW_TOKEN}",
        )


@dataclass(frozen=True, slots=True)
class Guard:
    """The rules of one listener.

    Attributes:
        host: The host that it is bound to.
        ports: Ports of all listeners of this process: a page served by one may talk to another.
        token: What a client must present, or None where loopback is the protection.
    """

    host: str
    ports: frozenset[int]
    token: str | None = None

    def refuse_headers(self, host: str | None, origin: str | None) -> Refusal | None:
        """Check `Host` and `Origin`.

        Args:
            host: Value of the Host header.
            origin: Value of the Origin header; None where absent, as programs send none.

        Returns:
            None when both are acceptable, else 421 for the host or 403 for the origin.
        """
        name, port = _host_and_port(f"//{host}") if host else (None, None)
        if name is None or not self._answers_to(name):
            return Refusal(421, f"This server does not answer to the host {_quoted(host)}.")
        if origin is None or self._own_origin(origin, str(host), port):
            return None
        return Refusal(403, f"Pages from {_quoted(origin)} may not talk to this server.")

    def admits(self, token: str | None) -> bool:
        """Whether `token` is the right one, compared in constant time; True if none is needed."""
        if self.token is None:
            return True
        return token is not None and hmac.compare_digest(
            token.encode("utf-8", "surrogatepass"), self.token.encode()
        )

    def admits_authorization(self, header: str | None) -> bool:
        """Whether an Authorization header carries the right bearer token."""
        scheme, _, token = (header or "").partition(" ")
        return self.admits(token.strip() if scheme.lower() == "bearer" else None)

    def _answers_to(self, name: str) -> bool:
        if name in LOOPBACK_HOSTS or name == self.host.lower():
            return True
        if is_loopback(self.host):
            return False
        # Bound to the network: our own name, and any literal address, which no page can rebind.
        return name == socket.gethostname().lower() or _is_literal(name)

    def _own_origin(self, origin: str, host: str, port: int | None) -> bool:
        scheme, _, place = origin.partition("://")
        if scheme not in ("http", "https"):
            return False  # includes the literal "null" of sandboxed pages and files
        if place.lower() == host.lower():
            return True
        name, origin_port = _host_and_port(origin)
        return name is not None and self._answers_to(name) and origin_port in self.ports | {port}


def _host_and_port(url: str) -> tuple[str | None, int | None]:
    try:
        parts = urlsplit(url)
        if "@" in parts.netloc or parts.path or parts.query or parts.fragment:
            return None, None
        return parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return None, None


def _is_literal(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _quoted(text: str | None) -> str:
    return ascii((text or "")[:100])


class GuardMiddleware:
    """ASGI middleware that applies a `Guard` to HTTP and adds `RESPONSE_HEADERS`.

    Args:
        app: What to protect.
        guard: The rules.
        open_paths: Paths that need no token: nothing about the data may show there.
    """

    def __init__(self, app: ASGIApp, guard: Guard, open_paths: Collection[str] = ()) -> None:
        self.app = app
        self.guard = guard
        self.open_paths = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a refused request here, pass on the others."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                present = {name.lower() for name, _ in headers}
                headers += [pair for pair in RESPONSE_HEADERS if pair[0] not in present]
                message = {**message, "headers": headers}
            await send(message)

        refusal = self._refuse(scope)
        if refusal is None:
            await self.app(scope, receive, send_with_headers)
            return
        from starlette.responses import PlainTextResponse

        headers = {"www-authenticate": "Bearer"} if refusal.status == 401 else {}
        response = PlainTextResponse(f"{refusal.reason}\n", refusal.status, headers)
        await response(scope, receive, send_with_headers)

    def _refuse(self, scope: Scope) -> Refusal | None:
        headers: dict[bytes, str] = {}
        for name, value in scope["headers"]:
            if name in headers and name in (b"host", b"origin", b"authorization"):
                return Refusal(400, f"The header {name.decode()} was sent twice.")
            headers[name] = value.decode("latin-1")
        refusal = self.guard.refuse_headers(headers.get(b"host"), headers.get(b"origin"))
        if refusal is not None:
            return refusal
        if scope["path"] in self.open_paths:
            return None
        if not self.guard.admits_authorization(headers.get(b"authorization")):
            return Refusal(401, "Send the header Authorization: Bearer TOKEN of the token file.")
        return None
