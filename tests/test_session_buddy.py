"""Other versions of Session-Buddy's file are read from a copy, whole, once, and by name."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sb_pipelines import cli
from sb_serving.errors import SbError
from sb_serving.sources import session_buddy
from sb_serving.store import Identity, Store, other_versions
from sb_serving.store.other_versions import Summary
from tests import session_buddy_builder as builder
from tests.builders import new_store

IDENTITY = Identity(b"k" * 32)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty event store."""
    with new_store(tmp_path / "ours") as opened:
        yield opened


def read(store: Store, path: Path) -> Summary:
    """Bring one file over."""
    summary = Summary()
    other_versions.bring_over(store, path, session_buddy.invocation, IDENTITY.user, summary)
    return summary


def select(store: Store, query: str) -> list[tuple[Any, ...]]:
    """Rows of a query."""
    return store.connection.execute(query).fetchall()


def alter(path: Path, script: str) -> None:
    """Run a script on a file."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)


@pytest.mark.parametrize("version", range(1, 7))
def test_every_version_is_read_and_left_as_it_is(
    tmp_path: Path, store: Store, version: int
) -> None:
    path = builder.make(tmp_path / "skills.db", version)
    content = path.read_bytes()
    summary = read(store, path)
    assert path.read_bytes() == content
    assert summary.versions == {str(path): builder.STEMS[version - 1]}
    assert (summary.rows, summary.inserted, summary.duplicates) == (10, 8, 0)
    assert summary.by_outcome == {"completed": 4, "failed": 3, "no_result": 3}
    assert [message.partition(": ")[2] for message in summary.refused] == [
        "invoked_at: '2026-13-45' is not an ISO 8601 time. Write 2026-01-31T12:00:00Z.",
        "invoked_at: '' is not an ISO 8601 time. Write 2026-01-31T12:00:00Z.",
    ]
    again = read(store, path)
    assert (again.inserted, again.duplicates) == (0, 8)
    assert again.authored.total() == 0


def test_a_row_becomes_an_invocation_by_the_outcome_rules(tmp_path: Path, store: Store) -> None:
    read(store, builder.make(tmp_path / "skills.db"))
    assert select(
        store,
        "select i.invoked_at, i.error_type, c.outcome, c.kind, c.source, c.user_id, i.user_query,"
        " i.workflow_phase, c.duration_source, i.workflow_path"
        " from skill_invocation i join skill_user_interactions c on c.invocation_id = i.id"
        " where i.skill_name = 'commit' order by i.id",
    ) == [
        (start, error, outcome, "skill", "session_buddy", "", None, phase, known, path)
        for start, error, outcome, phase, known, path in [
            (
                "2026-11-20T10:00:00.000001+00:00",
                None,
                "completed",
                "execution",
                "reported",
                "quick",
            ),
            ("2026-11-20T10:05:00.500000+00:00", "timeout", "failed", None, "reported", "quick"),
            ("2026-11-20T12:00:00.000000+00:00", None, "completed", None, "reported", "[0]"),
            ("2026-11-20T12:30:00.000000+00:00", None, "completed", None, "reported", None),
            ("2026-11-20T13:00:00.000000+00:00", None, "no_result", None, None, None),
            ("2026-11-20T13:15:00.000000+00:00", "[0]", "failed", None, "reported", "a[0]"),
        ]
    ]


def test_ids_of_any_type_and_columns_of_any_order_are_read(tmp_path: Path, store: Store) -> None:
    """As after a change to ULIDs: text ids, and columns that V4 does not know."""
    path = tmp_path / "skills.db"
    alter(
        path,
        """
        create table skill_migrations (version text, success boolean);
        insert into skill_migrations values ('V9__x', 1), ('V10__y', 1), ('V11__z', 0);
        create table skill_invocation (
            id text primary key, created text, session_id text, completed integer,
            invoked_at text, skill_name text, workflow_phase text) without rowid;
        insert into skill_invocation values
            ('01JD0000000000000000000001', 'x', '01JC', 1, '2026-11-20T10:00:00Z', 'a', 'setup'),
            ('01JD0000000000000000000002', 'x', 7, 0, '2026-11-20T10:01:00Z', 'b', 'planning');
        """,
    )
    summary = read(store, path)
    assert summary.versions == {str(path): "V10__y"}
    assert summary.left_out == {"workflow_phase": 1}
    assert select(store, "select skill_name, session_id, workflow_phase from skill_invocation") == [
        ("a", "01JC", "setup"),
        ("b", "7", None),
    ]


def test_values_that_cannot_be_are_left_out_and_counted(tmp_path: Path, store: Store) -> None:
    """Session-Buddy stored -5 s, infinity and whole error messages; the runs still happened."""
    path = builder.make(tmp_path / "skills.db", ordinary=[], odd=[])
    rows = [
        ("a", "2026-11-20T10:00:00Z", "s", 1, None, -5.0, None, None),
        ("a", "2026-11-20T10:01:00Z", "s", 1, None, float("inf"), "p" * 2000, None),
        ("a", "2026-11-20T10:02:00Z", "s", 0, "line one\nline two", "long", None, None),
        ("a", "2026-11-20T10:03:00Z", "s", 1, "ignored: it completed", 1.0, None, None),
        ("", "2026-11-20T10:04:00Z", "s", 1, None, None, None, None),
        ("a", "2999-01-01T00:00:00Z", "s", 1, None, None, None, None),
        (b"\xff", "2026-11-20T10:05:00Z", "s", 1, None, None, None, None),
    ]
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript("drop trigger trg_skill_metrics_after_insert")
        connection.executemany(builder.INSERT, rows)
        connection.execute(
            "update skill_invocation set skill_name = cast(x'61ff' as text) where id = 6"
        )
    summary = read(store, path)
    assert summary.left_out == {"duration_seconds": 3, "workflow_path": 1, "error_type": 1}
    assert (summary.inserted, summary.future, len(summary.refused)) == (5, 1, 2)
    assert select(
        store,
        "select outcome, duration_source, count(*) from skill_user_interactions group by 1, 2",
    ) == [("completed", None, 3), ("completed", "reported", 1), ("failed", None, 1)]


V4_ROWS = """
    insert into skill_user_interactions
        (user_id, session_id, skill_name, invoked_at, completed, rating)
    values ('ada', 's1', 'commit', '2026-11-20T10:00:00.000001+00:00', 1, 4.0),
           ('ada', 's1', 'commit', '2026-11-20T10:05:00.500000+00:00', 0, 99.0),
           ('eve', 's8', 'deploy', '2026-11-22T10:00:00+00:00', 1, 5.0),
           ('eve', 's8', 'deploy', '2026-11-22T10:00:00+00:00', 1, 5.0),
           ('', 's8', 'deploy', '2026-11-22T10:01:00+00:00', 0, null);
"""


def test_interactions_give_user_and_rating(tmp_path: Path, store: Store) -> None:
    """By session, skill and start; one that no invocation belongs to is an invocation."""
    path = builder.make(tmp_path / "skills.db", 4, odd=[])
    alter(path, V4_ROWS)
    summary = read(store, path)
    assert (summary.rows, summary.inserted) == (6, 6)
    assert summary.left_out == {"rating": 1}
    ada, eve = IDENTITY.user("ada"), IDENTITY.user("eve")
    assert select(
        store,
        "select skill_name, user_id, rating, outcome from skill_user_interactions order by id",
    ) == [
        ("commit", ada, 4.0, "completed"),
        ("commit", ada, None, "failed"),
        ("review", "", None, "completed"),
        ("review", "", None, "no_result"),
        ("deploy", eve, 5.0, "completed"),
        ("deploy", "", None, "no_result"),
    ]
    store.connection.execute("pragma wal_checkpoint(truncate)")
    assert b"ada" not in store.path.read_bytes()


AUTHORED = """
    insert into ab_test_configs (test_id, test_name, control_strategy, treatment_strategy,
                                 start_date, assignment_ratio, status)
    values (7, 'ranking', 'old', 'new', '2026-11-01', 0.3, 'stopped'),
           (9, 'order', 'a', 'b', '2026-11-02', 0.5, 'running');
    insert into ab_test_assignments (test_id, user_id, group_name)
    values (7, 'ada', 'control'), (7, 'eve', 'treatment'), (9, 'ada', 'treatment');
    insert into ab_test_outcomes (test_id, user_id, skill_name, completed, duration_seconds,
                                  user_rating, recorded_at)
    values (7, 'ada', 'commit', 1, 2.0, 4, 'x'), (7, 'ada', 'commit', 1, 2.0, 4, 'x'),
           (7, 'eve', 'never-used', 0, -5, 99, 'x');
    insert into skill_categories (category_id, category_name, parent_category_id, domain)
    values (30, 'below', 40, 'code'), (40, 'top', null, 'code');
    insert into skill_category_mapping (skill_name, category_id, confidence_score)
    values ('commit', 30, 0.9), ('never-used', 40, 0.5), ('lost', 99, 0.5);
    insert into skill_modalities (skill_name, modality_type, output_format)
    values ('never-used', 'testing', 'report');
"""


def test_experiments_and_taxonomy_are_carried_over_once(tmp_path: Path, store: Store) -> None:
    path = builder.make(tmp_path / "skills.db", 4)
    alter(path, AUTHORED)
    store.connection.execute("insert into skill_categories (category_name) values ('ours')")
    summary = read(store, path)
    assert summary.authored == {
        "ab_test_configs": 2,
        "ab_test_assignments": 3,
        "ab_test_outcomes": 3,
        "skill_categories": 2,
        "skill_category_mapping": 2,
        "skill_modalities": 1,
    }
    ada, eve = IDENTITY.user("ada"), IDENTITY.user("eve")
    assert select(
        store,
        "select t.test_name, t.assignment_ratio, t.status, a.user_id, a.group_name"
        " from ab_test_assignments a join ab_test_configs t using (test_id) order by assignment_id",
    ) == [
        ("ranking", 0.3, "stopped", ada, "control"),
        ("ranking", 0.3, "stopped", eve, "treatment"),
        ("order", 0.5, "running", ada, "treatment"),
    ]
    outcomes = "select user_id, completed, duration_seconds, user_rating from ab_test_outcomes"
    assert sorted(select(store, outcomes), key=repr) == sorted(
        [(ada, 1, 2.0, 4.0), (ada, 1, 2.0, 4.0), (eve, 0, None, None)], key=repr
    )
    assert select(
        store,
        "select c.category_name, p.category_name from skill_categories c"
        " left join skill_categories p on p.category_id = c.parent_category_id order by 1",
    ) == [("below", "top"), ("ours", None), ("top", None)]
    assert select(
        store,
        "select skill_name, category_name from skill_category_mapping"
        " join skill_categories using (category_id) order by 1",
    ) == [("commit", "below"), ("never-used", "top")]
    assert select(store, "pragma foreign_key_check") == []
    assert select(store, "select control_users from v_ab_test_summary where test_id = 1") == [(1,)]
    alter(
        path,
        "insert into ab_test_outcomes (test_id, user_id, skill_name, completed,"
        " duration_seconds, user_rating, recorded_at)"
        " values (7, 'ada', 'commit', 1, 2.0, 4, 'x');",
    )
    again = read(store, path)
    assert +again.authored == {"ab_test_outcomes": 1}  # a third equal one, and no more
    assert +read(store, path).authored == {}


def test_another_experiment_of_the_same_name_is_left_out(tmp_path: Path, store: Store) -> None:
    """Merging the users of two experiments would spoil both."""
    path = builder.make(tmp_path / "skills.db", 4)
    alter(path, AUTHORED)
    store.connection.execute(
        "insert into ab_test_configs (test_name, control_strategy, treatment_strategy, start_date)"
        " values ('ranking', 'old', 'newer', '2026-11-01')"
    )
    summary = read(store, path)
    assert summary.authored["ab_test_configs"] == 1
    assert summary.authored["ab_test_assignments"] == 1
    (message,) = summary.not_read
    assert "'ranking' is another one than ours" in message


def test_a_table_without_a_needed_column_is_passed_over_by_name(
    tmp_path: Path, store: Store
) -> None:
    path = builder.make(tmp_path / "skills.db", 4)
    alter(path, AUTHORED + "alter table ab_test_configs rename column test_name to title;")
    alter(path, "create view broken as select * from nowhere join ab_test_configs;")
    summary = read(store, path)
    assert summary.not_read == [f"{path}: ab_test_configs lacks test_name"]
    assert summary.inserted == 8
    assert +summary.authored == {
        "skill_categories": 2,
        "skill_category_mapping": 2,
        "skill_modalities": 1,
    }


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("drop table skill_invocation", "has no table skill_invocation"),
        (
            "drop view v_session_skill_summary; drop view v_daily_skill_source;"
            "drop view v_skill_effectiveness_by_phase; drop view v_workflow_phase_patterns;"
            "drop view v_skills_by_phase_usage; drop trigger trg_skill_metrics_after_insert;"
            "alter table skill_invocation rename column completed to done",
            "skill_invocation lacks completed",
        ),
    ],
)
def test_a_file_without_the_log_is_refused_by_name(
    tmp_path: Path, store: Store, script: str, message: str
) -> None:
    path = builder.make(tmp_path / "skills.db")
    alter(path, script)
    with pytest.raises(SbError, match=message):
        read(store, path)
    assert store.is_empty()


def test_files_that_are_not_another_programs_are_refused(tmp_path: Path, store: Store) -> None:
    with pytest.raises(SbError, match="the event store itself"):
        read(store, store.path)
    new_store(tmp_path / "second").close()
    with pytest.raises(SbError, match="an event store of this program"):
        read(store, tmp_path / "second" / "skills.db")
    with pytest.raises(SbError, match="no database at"):
        read(store, tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "text.db").write_text("text" * 2000)
    with pytest.raises(SbError, match="not a readable SQLite database"):
        read(store, tmp_path / "text.db")
    path = builder.make(tmp_path / "skills.db")
    content = path.read_bytes()
    path.write_bytes(content[: 4096 * 4] + b"x" * (len(content) - 4096 * 4))
    with pytest.raises(SbError, match=r"damaged|malformed|refused to go on"):
        read(store, path)
    assert store.is_empty()


def test_a_file_in_a_folder_that_cannot_be_written_is_read(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In WAL mode SQLite wants to make files beside it even to read."""
    path = builder.make(tmp_path / "skills.db")

    def refuse(path: Path) -> sqlite3.Connection:
        raise SbError("unable to open database file")

    monkeypatch.setattr(other_versions.connections, "connect_readonly", refuse)
    assert read(store, path).inserted == 8
    path.with_name("skills.db-wal").write_bytes(b"")
    with pytest.raises(SbError, match="unable to open"):
        read(store, path)


def test_rows_that_its_writer_has_not_checkpointed_are_read(tmp_path: Path, store: Store) -> None:
    path = builder.make(tmp_path / "skills.db", odd=[])
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute(
            builder.INSERT, ("late", "2026-11-22T10:00:00+00:00", "s", 1, None, None, None, None)
        )
        assert read(store, path).inserted == 5


def sb(*arguments: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(cli.sb, arguments)


def test_the_command_reads_several_files_and_says_what_came(tmp_path: Path, sb_home: Path) -> None:
    first = builder.make(tmp_path / "first.db", 3)
    second = builder.make(tmp_path / "second.db", 4, odd=[])
    alter(second, V4_ROWS + AUTHORED)
    done = sb("ingest", "session-buddy", str(first), str(second))
    assert done.exit_code == 0, done.exception
    assert "16 invocations read, 10 added, 4 known already" in done.output
    assert "2 rows added to ab_test_configs" in done.output
    assert "1 rows came without their rating" in done.output
    assert done.output.count("not read: ") == 2
    again = json.loads(sb("ingest", "session-buddy", str(first), str(second), "--json").output)
    assert (again["files"], again["inserted"], again["duplicates"]) == (2, 0, 14)
    assert again["versions"][str(second)] == "V4__phase4_extensions"
    assert (sb_home / "skills.db").exists()
