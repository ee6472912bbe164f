"""Host, Origin, token and address: the rules that all listeners share."""

from __future__ import annotations

import hmac
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from sb_serving import security
from sb_serving.errors import SbError
from sb_serving.security import Guard, GuardMiddleware

TOKEN = "correct-horse-battery-staple"
LOCAL = Guard("127.0.0.1", frozenset({8765, 8787}))
NETWORK = Guard("0.0.0.0", frozenset({8787}), TOKEN)


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8787", "localhost:8787", "LOCALHOST", "[::1]:8787", "localhost:9999"]
)
def test_loopback_names_are_answered_with_any_port(host: str) -> None:
    """A forwarded port (ssh -L 9999:localhost:8787) shows in Host and is harmless."""
    assert LOCAL.refuse_headers(host, None) is None


@pytest.mark.parametrize(
    "host",
    [None, "", "evil.example:8787", "127.0.0.1.evil.example", "10.0.0.7:8787", "localhost@evil",
     "localhost:port", "localhost/x", "[::1", "127.0.0.1:8787, evil.example"],
)  # fmt: skip
def test_any_other_host_is_misdirected(host: str | None) -> None:
    """A page whose own name resolves to 127.0.0.1 (DNS rebinding) still sends its name."""
    refusal = LOCAL.refuse_headers(host, None)
    assert refusal is not None
    assert refusal.status == 421


@pytest.mark.parametrize(
    "origin",
    [None, "http://127.0.0.1:8787", "http://localhost:8765", "http://[::1]:8787",
     "https://localhost:8787"],
)  # fmt: skip
def test_no_origin_and_our_own_pages_are_accepted(origin: str | None) -> None:
    assert LOCAL.refuse_headers("127.0.0.1:8765", origin) is None


@pytest.mark.parametrize(
    "origin",
    ["null", "", "http://evil.example", "http://127.0.0.1:3000", "http://localhost", "file://",
     "http://localhost:8787.evil.example", "http://localhost:8787/path", "http://[", "http://",
     "ftp://127.0.0.1:8787", "http://x@127.0.0.1:8787"],
)  # fmt: skip
def test_other_origins_are_refused(origin: str) -> None:
    refusal = LOCAL.refuse_headers("127.0.0.1:8765", origin)
    assert refusal is not None
    assert refusal.status == 403


def test_a_page_behind_a_proxy_of_ours_is_same_origin() -> None:
    assert LOCAL.refuse_headers("localhost", "https://localhost") is None


def test_on_the_network_literal_addresses_are_answered_and_names_are_not() -> None:
    assert NETWORK.refuse_headers("192.168.1.5:8787", None) is None
    assert NETWORK.refuse_headers("[fe80::1]:8787", "http://[fe80::1]:8787") is None
    refusal = NETWORK.refuse_headers("evil.example:8787", None)
    assert refusal is not None
    assert refusal.status == 421


@pytest.mark.parametrize(
    ("header", "good"),
    [(f"Bearer {TOKEN}", True), (f"bearer  {TOKEN}", True), (f"Basic {TOKEN}", False),
     (TOKEN, False), ("Bearer", False), ("Bearer x", False), (None, False),
     (f"Bearer {TOKEN}é", False)],
)  # fmt: skip
def test_bearer_header(header: str | None, good: bool) -> None:
    assert NETWORK.admits_authorization(header) is good
    assert LOCAL.admits_authorization(header) is True


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest

    def recorded(a: bytes, b: bytes) -> bool:
        seen.append((a, b))
        return compare(a, b)

    monkeypatch.setattr(hmac, "compare_digest", recorded)
    assert not NETWORK.admits("\ud800")
    assert NETWORK.admits(TOKEN)
    assert len(seen) == 2


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:1", "[::1]:8765", "127.9.9.9:80"])
def test_loopback_needs_no_token(address: str) -> None:
    security.check_address("feed", address, None)


@pytest.mark.parametrize("address", ["0.0.0.0:8765", "[::]:8765", "192.168.1.5:80", "host.lan:80"])
def test_an_open_address_without_a_token_is_refused_with_what_to_type(address: str) -> None:
    with pytest.raises(SbError, match="can be reached from other machines") as caught:
        security.check_address("metrics", address, None)
    assert "--metrics 127.0.0.1:" in caught.value.fix
    assert "--token-file" in caught.value.fix
    security.check_address("metrics", address, TOKEN)


@pytest.mark.parametrize("address", ["", "8765", ":8765", "host:", "host:x", "host:65536", "h:²"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(SbError, match="is not an address"):
        security.split_address(address)


@pytest.mark.parametrize("content", ["", "short", "two words that are long enough", "\xff\xfe"])
def test_a_token_file_without_a_good_token_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "token.txt"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(SbError, match=r"token\.txt") as caught:
        security.read_token(path)
    assert "secrets.token_urlsafe" in caught.value.fix


def test_token_file(tmp_path: Path) -> None:
    path = tmp_path / "token.txt"
    path.write_text(f"{TOKEN}\n")
    assert security.read_token(path) == TOKEN
    assert security.read_token(None) is None
    with pytest.raises(SbError, match="cannot be read"):
        security.read_token(tmp_path / "missing.txt")


async def _request(guard: Guard, path: str = "/", **headers: str) -> httpx.Response:
    app = Starlette(
        routes=[Route(p, lambda _: PlainTextResponse("data")) for p in ("/", "/healthz")]
    )
    transport = httpx.ASGITransport(GuardMiddleware(app, guard, open_paths=("/healthz",)))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8787") as client:
        return await client.get(path, headers=headers)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("headers", "status"),
    [({}, 200), ({"host": "evil.example"}, 421), ({"origin": "null"}, 403),
     ({"origin": "http://localhost:8787"}, 200)],
)  # fmt: skip
async def test_middleware_answers_with_the_status(headers: dict[str, str], status: int) -> None:
    response = await _request(LOCAL, **headers)
    assert response.status_code == status
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in response.headers["content-security-policy"]


@pytest.mark.anyio
async def test_middleware_asks_for_the_token_except_on_open_paths() -> None:
    refused = await _request(NETWORK)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert "token file" in refused.text
    assert (await _request(NETWORK, "/healthz")).status_code == 200
    assert (await _request(NETWORK, Authorization=f"Bearer {TOKEN}")).status_code == 200
    rebound = await _request(NETWORK, "/healthz", host="evil.example")
    assert rebound.status_code == 421
