"""`session_skill` and the tables beside it: folded news equal a count from the beginning."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sb_pipelines.defs import audit, sets
from sb_pipelines.resources import empty, set_watermark, watermark

Event = tuple[str, str, str, str, str]
"""Skill, kind, session, user, outcome."""


@pytest.fixture(scope="module")
def warehouse() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("set threads = 1")
    return connection


def add(connection: duckdb.DuckDBPyConnection, rows: list[Event]) -> None:
    """Events as `events` leaves them: a late row has a new id and an old session."""
    known, _ = watermark(connection, "events")
    connection.execute(
        "insert into events (id, skill_name, kind, session_id, user_id, outcome)"
        " select ? + row_number() over (), r.* from (values "
        + ", ".join(["(?, ?, ?, ?, ?)"] * len(rows))
        + ") r",
        [known, *itertools.chain(*rows)],
    )
    set_watermark(connection, "events", known + len(rows), None)


def named(connection: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """The tables, told by names."""
    tables = {
        "session_skill": "select session_id, skill_name, kind from session_skill"
        " join session_key using (session) join skill_key using (skill)",
        "user_skill": "select user_id, skill_name, kind, decided from user_skill"
        " join user_key using (user_number) join skill_key using (skill)",
        "skill_session_size": "select skill_name, kind, size, n from skill_session_size"
        " join skill_key using (skill)",
        "pair_count": "select x.skill_name, x.kind, y.skill_name, y.kind, n from pair_count"
        " join skill_key x on x.skill = a join skill_key y on y.skill = b",
    }
    rows = {name: connection.execute(query).fetchall() for name, query in tables.items()}
    rows["pair_count"] = [
        (*sorted([(a, kind), (b, other)]), n) for a, kind, b, other, n in rows["pair_count"]
    ]
    return {name: sorted(found) for name, found in rows.items()}


def counted(recorded: list[Event]) -> dict[str, Any]:
    """The same, by another way."""
    held = {(session, skill, kind) for skill, kind, session, _, _ in recorded if session}
    used = {
        (user, skill, kind, outcome in ("completed", "failed"))
        for skill, kind, _, user, outcome in recorded
        if user
    }
    together = Counter(
        pair
        for session in {session for session, *_ in held}
        for pair in itertools.combinations(
            sorted((skill, kind) for own, skill, kind in held if own == session), 2
        )
    )
    sizes = Counter(session for session, *_ in held)
    of_size = Counter((skill, kind, sizes[session]) for session, skill, kind in held)
    return {
        "session_skill": sorted(held),
        "skill_session_size": sorted((*key, n) for key, n in of_size.items()),
        "user_skill": sorted(used),
        "pair_count": sorted((*pair, n) for pair, n in together.items()),
    }


def test_a_session_worked_by_hand(
    warehouse: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its second half comes a day later, in two batches; one name in two kinds is two skills."""
    empty(warehouse)
    add(
        warehouse,
        [
            ("Read", "tool", "s1", "u1", "completed"),
            ("commit", "skill", "s1", "u1", "rejected"),
            ("Read", "tool", "s1", "u1", "failed"),
            ("commit", "skill", "s2", "", "completed"),
            ("lost", "skill", "", "u2", "completed"),
        ],
    )
    sets.fold_sets(warehouse)
    monkeypatch.setattr(sets, "BATCH_IDS", 2)
    add(
        warehouse,
        [
            ("commit", "skill", "s1", "u1", "completed"),
            ("commit", "command", "s1", "u1", "no_result"),
            ("Read", "tool", "s2", "u1", "completed"),
        ],
    )
    assert sets.fold_sets(warehouse) == 8
    read, commit, command = ("Read", "tool"), ("commit", "skill"), ("commit", "command")
    assert named(warehouse) == {
        "session_skill": [
            ("s1", *read),
            ("s1", *command),
            ("s1", *commit),
            ("s2", *read),
            ("s2", *commit),
        ],
        "skill_session_size": [
            (*read, 2, 1),
            (*read, 3, 1),
            (*command, 3, 1),
            (*commit, 2, 1),
            (*commit, 3, 1),
        ],
        "user_skill": [
            ("u1", *read, True),
            ("u1", *command, False),
            ("u1", *commit, False),
            ("u1", *commit, True),
            ("u2", "lost", "skill", True),
        ],
        "pair_count": [(read, command, 1), (read, commit, 2), (command, commit, 1)],
    }


(SETS,) = (grown for grown in audit.GROWN if grown.compared[0] == "pair_count")
BATCHES = 50

DRAWN = {
    "seed": st.integers(0, 2**32),
    "skills": st.integers(1, 12),
    "sessions": st.integers(1, 40),
    "users": st.integers(1, 6),
    "late": st.sampled_from([0.0, 0.2, 1.0]),
}


def fold_batches(seed: int, skills: int, sessions: int, users: int, late: float) -> None:
    """Fold fifty random batches and compare: repeated rows, sessions that go on, missing names."""
    draw = random.Random(seed)
    recorded: list[Event] = []
    with duckdb.connect() as connection:
        connection.execute("set threads = 1")
        empty(connection)
        for number in range(BATCHES):
            newest = 1 + number * sessions // BATCHES
            rows = [
                (
                    f"skill-{draw.randrange(skills)}",
                    draw.choice(["skill", "skill", "tool"]),
                    f"s{draw.randrange(newest) if draw.random() < late else newest}"
                    if draw.random() < 0.95
                    else "",
                    draw.choice(["", *(f"u{user}" for user in range(users))]),
                    draw.choice(["completed", "failed", "rejected", "no_result"]),
                )
                for _ in range(draw.randrange(1, 8))
            ]
            if recorded and draw.random() < 0.3:
                rows.append(draw.choice(recorded))
            add(connection, rows)
            recorded += rows
            sets.fold_sets(connection)
        assert named(connection) == counted(recorded)
        assert audit.differing(connection, SETS) == dict.fromkeys(sets.SETS, 0)


@settings(max_examples=5, deadline=None)
@given(**DRAWN)
def test_folded_batches_equal_a_count_from_the_beginning(**drawn: Any) -> None:
    """A thousand of these batches are folded by `tests/validate/validate_sets.py`."""
    fold_batches(**drawn)


@pytest.mark.parametrize(
    ("damage", "tables"),
    [
        ("update pair_count set n = n + 1", {"pair_count"}),
        ("insert into pair_count from pair_count limit 1", {"pair_count"}),
        ("delete from session_skill where skill = 1", {"session_skill"}),
        ("insert into session_skill from session_skill limit 1", {"session_skill"}),
        ("update user_skill set decided = not decided", {"user_skill"}),
        ("update skill_session_size set size = 2", {"skill_session_size"}),
        ("delete from skill_session_size where skill = 1", {"skill_session_size"}),
    ],
)
def test_the_audit_finds_what_is_wrong(
    warehouse: duckdb.DuckDBPyConnection, damage: str, tables: set[str]
) -> None:
    empty(warehouse)
    add(
        warehouse,
        [
            ("a", "skill", "s1", "u1", "completed"),
            ("b", "skill", "s1", "u1", "completed"),
            ("c", "skill", "s1", "u2", "rejected"),
        ],
    )
    sets.fold_sets(warehouse)
    assert {*audit.differing(warehouse, SETS).values()} == {0}
    warehouse.execute(damage)
    found = audit.differing(warehouse, SETS)
    assert {table for table, rows in found.items() if rows} == tables
