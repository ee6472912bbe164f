"""The feed's protocol as a pure state machine: no sockets, no clock."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sb_serving.faces import feed_protocol
from sb_serving.faces.feed_protocol import ERRORS, Reply, Session

NOW = "2026-11-22T12:00:00.000000+00:00"


def say(session: Session, message: object, seconds: float = 0.0) -> Reply:
    data = message if isinstance(message, str | bytes) else json.dumps(message)
    return session.receive(data, seconds=seconds, timestamp=NOW)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ("[1,2]", "not_an_object"),
        ('"s"', "not_an_object"),
        ("5", "not_an_object"),
        ("null", "not_an_object"),
        ("{", "not_json"),
        ("", "not_json"),
        ("[" * 4000, "not_json"),
        ("{}", "no_type"),
        ('{"type": 5}', "no_type"),
        ('{"type": "shutdown"}', "unknown_type"),
        ('{"type": "ping", "payload": 1}', "unknown_field"),
        ('{"type": "subscribe", "skills": ["a"]}', "unknown_field"),
        ('{"type": "subscribe", "skill": {"a": 1}}', "bad_skill"),
        ('{"type": "subscribe", "skill": ""}', "bad_skill"),
        ('{"type": "unsubscribe", "skill": 5}', "bad_skill"),
        (json.dumps({"type": "subscribe", "skill": "x" * 129}), "bad_skill"),
        (json.dumps({"type": "subscribe", "skill": "x" * 5000}), "too_large"),
        ('{"type": "ping", "p": "' + "é" * 2040 + '"}', "too_large"),
        (b"\x00\xff", "not_text"),
        (b'{"type": "ping"}', "not_text"),
    ],
)
def test_every_malformed_message_gets_a_reply_with_a_code(data: str | bytes, code: str) -> None:
    """The predecessor logged a traceback and left the client without an answer."""
    session = Session()
    reply = say(session, data)
    assert reply.message["type"] == "error"
    assert reply.message["code"] == code
    assert reply.message["message"] == ERRORS[code]
    assert reply.close is None
    assert say(session, {"type": "ping"}).message["type"] == "pong"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.one_of(st.text(), st.binary(), JSON.map(json.dumps)))
def test_no_message_is_left_without_a_reply_that_is_json(data: str | bytes) -> None:
    reply = say(Session(), data)
    assert json.dumps(reply.message, allow_nan=False)
    assert reply.message["timestamp"] == NOW


def test_subscriptions_add_up_and_null_means_all() -> None:
    session = Session()
    first = say(session, {"type": "subscribe", "skill": "commit"})
    assert first.message == {
        "type": "subscription_confirmed",
        "skill": "commit",
        "subscriptions": ["commit"],
        "timestamp": NOW,
    }
    say(session, {"type": "subscribe", "skill": "pytest-run"})
    say(session, {"type": "subscribe", "skill": "commit"})
    assert session.subscriptions == ("commit", "pytest-run")
    everything = say(session, {"type": "subscribe", "skill": None})
    assert everything.message["skill"] is None
    assert everything.message["subscriptions"] == []


def test_unsubscribe_is_confirmed_for_one_skill_and_for_all() -> None:
    session = Session()
    for skill in ("a", "b", "c"):
        say(session, {"type": "subscribe", "skill": skill})
    one = say(session, {"type": "unsubscribe", "skill": "b"})
    assert (one.message["type"], one.message["subscriptions"]) == ("unsubscribed", ["a", "c"])
    rest = say(session, {"type": "unsubscribe"})
    assert (rest.message["type"], rest.message["subscriptions"]) == ("unsubscribed", [])


def test_the_seventeenth_subscription_is_refused_and_changes_nothing() -> None:
    session = Session()
    for number in range(feed_protocol.MAX_SUBSCRIPTIONS):
        say(session, {"type": "subscribe", "skill": f"s{number}"})
    reply = say(session, {"type": "subscribe", "skill": "one more"})
    assert reply.message["code"] == "too_many_subscriptions"
    assert len(session.subscriptions) == feed_protocol.MAX_SUBSCRIPTIONS
    again = say(session, {"type": "subscribe", "skill": "s3"})
    assert again.message["type"] == "subscription_confirmed"


def test_twenty_messages_in_ten_seconds_and_no_more() -> None:
    session = Session()
    replies = [say(session, {"type": "ping"}, seconds=0.1 * n) for n in range(25)]
    kinds = [reply.message["type"] for reply in replies]
    assert kinds == ["pong"] * 20 + ["error"] * 5
    assert replies[-1].message["code"] == "rate_limited"
    assert say(session, {"type": "ping"}, seconds=10.0).message["type"] == "pong"


def test_a_skill_of_128_characters_of_any_script_is_accepted() -> None:
    skill = "日" * 128
    assert say(Session(), {"type": "subscribe", "skill": skill}).message["skill"] == skill


def test_nothing_happens_before_the_right_token() -> None:
    session = Session(lambda token: token == "right")
    assert session.waiting
    for wrong in (
        {"type": "ping"},
        {"type": "auth"},
        {"type": "auth", "token": "wrong"},
        {"type": "auth", "token": 5},
        {"type": "ping", "token": "x"},
        "[1]",
        b"x",
    ):
        reply = say(session, wrong)
        assert reply.message["code"] == "auth_failed"
        assert reply.close == feed_protocol.AUTH_FAILED
        assert session.waiting
    reply = say(session, {"type": "auth", "token": "right"})
    assert (reply.message["type"], reply.message["authenticated"]) == ("connected", True)
    assert not session.waiting


def test_a_first_message_with_a_token_alone_is_the_predecessors_way() -> None:
    session = Session(lambda token: token == "right")
    assert say(session, {"token": "right"}).message["type"] == "connected"


def test_a_token_that_nobody_asked_for_does_no_harm() -> None:
    reply = say(Session(), {"type": "auth", "token": "x"})
    assert (reply.message["type"], reply.message["authenticated"]) == ("connected", False)


def test_every_error_code_is_documented_and_every_documented_one_exists() -> None:
    page = (Path(__file__).parent.parent / "docs" / "feed.md").read_text()
    table = page.partition("| error code |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, flags=re.M)) == set(ERRORS)
