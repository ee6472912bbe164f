"""The feed's protocol without sockets: one client's message in, one reply and its new state out.

Belongs here: what a client may say, what it is told, and its limits. Sockets, ticks and slow
clients are in `feed.py`; the data of an update comes from `feed.py` too. Nothing here reads a
clock: times are arguments.

    client                                  server
                                            connected
    {"type": "auth", "token": T}            connected, or error and close 4001
    {"type": "subscribe", "skill": S}       subscription_confirmed; updates about S follow
    {"type": "subscribe", "skill": null}    subscription_confirmed; updates about all skills follow
    {"type": "unsubscribe"}                 unsubscribed from everything: all skills again
    {"type": "unsubscribe", "skill": S}     unsubscribed from S
    {"type": "ping"}                        pong
    anything else                           error with a code of `ERRORS`
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MAX_MESSAGE_BYTES = 4 * 1024
MAX_SUBSCRIPTIONS = 16
MAX_SKILL_CHARACTERS = 128
MAX_MESSAGES = 20
"""How many messages a client may send in `WINDOW_SECONDS`."""
WINDOW_SECONDS = 10.0
AUTH_SECONDS = 5.0
"""How long a client may take to send its token."""
AUTH_FAILED = 4001
"""WebSocket close code of a client without the right token."""

ERRORS = {
    "too_large": f"a message may have at most {MAX_MESSAGE_BYTES} bytes",
    "rate_limited": f"at most {MAX_MESSAGES} messages in {WINDOW_SECONDS:.0f} s",
    "not_text": "send JSON as a text message, not binary",
    "not_json": "the message is not JSON",
    "not_an_object": 'send a JSON object, for example {"type": "ping"}',
    "no_type": 'the field "type" is missing or not text',
    "unknown_type": "known types: auth, ping, subscribe, unsubscribe",
    "unknown_field": "the message has a field that its type does not know",
    "bad_skill": f"skill must be text of 1 to {MAX_SKILL_CHARACTERS} characters, or null for all",
    "too_many_subscriptions": f"at most {MAX_SUBSCRIPTIONS} skills; unsubscribe from one first",
    "auth_failed": 'the first message must be {"type": "auth", "token": TOKEN} with the right '
    f"token, within {AUTH_SECONDS:.0f} s",
}
"""Codes of error replies with the sentence that each carries."""

_FIELDS = {
    "auth": {"type", "token"},
    "ping": {"type"},
    "subscribe": {"type", "skill"},
    "unsubscribe": {"type", "skill"},
}


@dataclass(frozen=True, slots=True)
class Reply:
    """What to send to the client; with `close`, close the connection with that code afterwards."""

    message: dict[str, Any]
    close: int | None = None


class Session:
    """The state of one client.

    Args:
        admits: Says whether a token is right; None where no token is needed.
    """

    __slots__ = ("_admits", "_arrivals", "authenticated", "subscriptions", "waiting")

    def __init__(self, admits: Callable[[str], bool] | None = None) -> None:
        self.subscriptions: tuple[str, ...] = ()
        """Skills that the client asked for, in order; empty means all."""
        self.authenticated = False
        """Whether the client has shown a token."""
        self.waiting = admits is not None
        """Whether the client must still show its token; it gets nothing before."""
        self._admits = admits
        self._arrivals: deque[float] = deque(maxlen=MAX_MESSAGES)

    def greeting(self, timestamp: str) -> dict[str, Any]:
        """The message that opens a conversation; sent once no token is being waited for."""
        return {
            "type": "connected",
            "message": "Session-Buddy Analytics live feed",
            "authenticated": self.authenticated,
            "timestamp": timestamp,
        }

    def receive(self, data: str | bytes, *, seconds: float, timestamp: str) -> Reply:
        """Take one message of the client.

        Args:
            data: The message; bytes for a binary one.
            seconds: A clock that only rises, for the rate limit.
            timestamp: The time as text, for the reply.

        Returns:
            The reply; every message has one.
        """
        if self.waiting:
            return self._authenticate(data, timestamp)
        if len(self._arrivals) == MAX_MESSAGES and seconds - self._arrivals[0] < WINDOW_SECONDS:
            return _error("rate_limited", timestamp)
        self._arrivals.append(seconds)
        message = _parse(data)
        if isinstance(message, str):
            return _error(message, timestamp)
        match message["type"]:
            case "subscribe":
                return self._subscribe(message, timestamp)
            case "unsubscribe":
                return self._unsubscribe(message, timestamp)
            case "auth":  # without need, or again
                return Reply(self.greeting(timestamp))
            case _:
                return Reply({"type": "pong", "timestamp": timestamp})

    def auth_failed(self, timestamp: str) -> Reply:
        """The reply to a client that sent no token in time."""
        return _error("auth_failed", timestamp, close=AUTH_FAILED)

    def _authenticate(self, data: str | bytes, timestamp: str) -> Reply:
        message = _parse(data, default_type="auth")  # the predecessor's clients send no type here
        token = None if isinstance(message, str) else message.get("token")
        if self._admits is None or not isinstance(token, str) or not self._admits(token):
            return self.auth_failed(timestamp)
        self.waiting = False
        self.authenticated = True
        return Reply(self.greeting(timestamp))

    def _subscribe(self, message: dict[str, Any], timestamp: str) -> Reply:
        skill = message.get("skill")
        if skill is None:
            self.subscriptions = ()
        elif not _is_skill(skill):
            return _error("bad_skill", timestamp)
        elif skill not in self.subscriptions:
            if len(self.subscriptions) == MAX_SUBSCRIPTIONS:
                return _error("too_many_subscriptions", timestamp)
            self.subscriptions += (skill,)
        return self._state("subscription_confirmed", skill, timestamp)

    def _unsubscribe(self, message: dict[str, Any], timestamp: str) -> Reply:
        skill = message.get("skill")
        if skill is None:
            self.subscriptions = ()
        elif not _is_skill(skill):
            return _error("bad_skill", timestamp)
        else:
            self.subscriptions = tuple(name for name in self.subscriptions if name != skill)
        return self._state("unsubscribed", skill, timestamp)

    def _state(self, kind: str, skill: str | None, timestamp: str) -> Reply:
        return Reply(
            {
                "type": kind,
                "skill": skill,
                "subscriptions": list(self.subscriptions),
                "timestamp": timestamp,
            }
        )


def _parse(data: str | bytes, default_type: str | None = None) -> dict[str, Any] | str:
    """The message, or the code of what is wrong with it."""
    if isinstance(data, bytes):
        return "not_text"
    # A character has at least one byte: the first comparison keeps us from encoding a giant.
    too_large = len(data) > MAX_MESSAGE_BYTES
    if too_large or len(data.encode("utf-8", "surrogatepass")) > MAX_MESSAGE_BYTES:
        return "too_large"
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        return "not_json"
    if not isinstance(message, dict):
        return "not_an_object"
    kind = message.get("type", default_type)
    if not isinstance(kind, str):
        return "no_type"
    if kind not in _FIELDS:
        return "unknown_type"
    return message if message.keys() <= _FIELDS[kind] else "unknown_field"


def _is_skill(value: object) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= MAX_SKILL_CHARACTERS


def _error(code: str, timestamp: str, *, close: int | None = None) -> Reply:
    message = {"type": "error", "code": code, "message": ERRORS[code], "timestamp": timestamp}
    return Reply(message, close)
