"""Schema versions: up, down, twice, half, foreign."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sb_pipelines import cli
from sb_serving.errors import SbError
from sb_serving.store import FileOffset, Store, backups, expected, migrate, restore
from sb_serving.store.connection import connect, connect_readonly
from tests import session_buddy_builder as builder
from tests.builders import SESSION_BUDDY_INSERT, invocation, new_store
from tests.chaos import chaos_migrate

V4_TABLES = {
    "ab_test_assignments",
    "ab_test_configs",
    "ab_test_outcomes",
    "skill_anomalies",
    "skill_categories",
    "skill_category_mapping",
    "skill_cluster_membership",
    "skill_clusters",
    "skill_community_baselines",
    "skill_dependencies",
    "skill_metrics_cache",
    "skill_modalities",
    "skill_time_series",
    "skill_user_interactions",
}
V4_VIEWS = {
    "v_ab_test_summary",
    "v_community_baseline_comparison",
    "v_multimodal_skill_catalog",
    "v_realtime_skill_dashboard",
    "v_skill_dependency_network",
    "v_skill_effectiveness_trend",
}


def at_version(path: Path, version: int) -> sqlite3.Connection:
    connection = connect(path)
    migrate.up(connection, path, target=version)
    return connection


def objects(connection: sqlite3.Connection) -> set[tuple[str, str, str]]:
    return set(
        connection.execute(
            "select type, name, sql from sqlite_master where name not like 'sqlite_%'"
        )
    )


def test_a_fresh_file_has_the_fourteen_tables_and_six_views_of_v4(tmp_path: Path) -> None:
    with new_store(tmp_path) as store:
        names = {(kind, name) for kind, name, _ in objects(store.connection)}
        for _, view in (pair for pair in names if pair[0] == "view"):
            store.connection.execute(f"select * from {view}").fetchall()
    assert {("table", name) for name in V4_TABLES} <= names
    assert {("view", name) for name in V4_VIEWS} <= names
    assert sum(kind == "view" for kind, _ in names) == 13


def test_up_and_down_pass_through_every_version(tmp_path: Path) -> None:
    """Session-Buddy's rollbacks of V2 and V3 always failed and left half a state."""
    path = tmp_path / "skills.db"
    pictures = {}
    for version in range(1, 5):
        connection = at_version(path, version)
        pictures[version] = objects(connection)
        connection.close()
    connection = connect(path)
    connection.execute(
        SESSION_BUDDY_INSERT, ("a", "2026-11-20T10:00:00+00:00", "s", 1, None, 1.0, None)
    )
    for version in (3, 2, 1):
        migrate.down(connection, path)
        assert migrate.status(connection, path).version == version
        assert objects(connection) == pictures[version]
        assert connection.execute("select count(*) from skill_invocation").fetchone() == (1,)
    assert migrate.up(connection, path) == [m.stem for m in migrate.migrations()[1:]]
    assert connection.execute("select completed from skill_hour").fetchall() == [(1,)]
    connection.close()


def test_each_change_of_an_existing_file_makes_a_backup(tmp_path: Path) -> None:
    path = tmp_path / "skills.db"
    connection = at_version(path, 3)
    assert list(tmp_path.glob("*.backup-*")) == []
    migrate.up(connection, path)
    (copy,) = tmp_path.glob("*.backup-*")
    old = connect(copy)
    assert migrate.status(old, copy).version == 3
    old.close()
    connection.close()


def test_a_dry_run_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "skills.db"
    connection = at_version(path, 2)
    before = objects(connection)
    assert migrate.up(connection, path, dry_run=True) == [m.stem for m in migrate.migrations()[2:]]
    assert migrate.down(connection, path, steps=9, dry_run=True)
    assert objects(connection) == before
    connection.close()


def test_views_of_another_tool_come_back_on_the_way_down(tmp_path: Path) -> None:
    path = tmp_path / "skills.db"
    connection = at_version(path, 3)
    connection.execute("drop view v_top_skills")
    connection.execute("create view v_top_skills as select skill_name from skill_metrics")
    connection.execute("create view own_view as select 1 as one")
    before = objects(connection)
    migrate.up(connection, path)
    migrate.down(connection, path)
    assert objects(connection) == before
    connection.close()


def test_a_failing_step_leaves_the_version_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Session-Buddy's runner left the statements before the failing one in the file."""
    path = tmp_path / "skills.db"
    connection = at_version(path, 3)
    before = objects(connection)
    good = migrate.Migration.up_sql.fget
    assert good is not None
    broken = property(lambda self: good(self) + "create table oops (;")
    monkeypatch.setattr(migrate.Migration, "up_sql", broken)
    monkeypatch.setattr(migrate.Migration, "checksum", property(lambda self: None))
    connection.execute("update skill_migrations set checksum = null")
    with pytest.raises((SbError, ValueError)):
        migrate.up(connection, path)
    assert objects(connection) == before
    connection.close()


def test_an_edited_script_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "skills.db"
    connection = at_version(path, 4)
    connection.execute("update skill_migrations set checksum = 'x' where version like 'V2%'")
    with pytest.raises(SbError, match="V2__add_semantic_search was applied"):
        migrate.status(connection, path)
    connection.close()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("insert into skill_migrations (version, applied_at) values ('V5__ulid', 'x')", "V5__ulid"),
        ("delete from skill_migrations where version like 'V2%'", "half migrated"),
        ("alter table skill_user_interactions drop column outcome", "lacks outcome"),
    ],
)
def test_unknown_and_half_migrated_files_are_refused(
    tmp_path: Path, statement: str, message: str
) -> None:
    path = tmp_path / "skills.db"
    connection = at_version(path, 4)
    if "outcome" in statement:
        connection.execute("drop table skill_user_interactions")
        connection.execute("create table skill_user_interactions (id, kind, invocation_id)")
        message = "lacks event_id, outcome"
    else:
        connection.execute(statement)
    with pytest.raises(SbError, match=message):
        migrate.up(connection, path)
    connection.close()


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    connection = connect(path)
    connection.execute("create table bookmarks (url)")
    with pytest.raises(SbError, match="bookmarks"):
        migrate.up(connection, path)
    connection.close()


def test_an_older_file_of_another_tool_is_not_migrated_unasked(tmp_path: Path) -> None:
    path = tmp_path / "skills.db"
    connection = at_version(path, 3)
    connection.execute("update skill_migrations set applied_by = 'session-buddy'")
    connection.close()
    with pytest.raises(SbError, match="sb migrate up"):
        Store.open(path, create=True)


def test_an_older_file_of_our_own_is_migrated_on_opening(tmp_path: Path) -> None:
    path = tmp_path / "skills.db"
    at_version(path, 3).close()
    with Store.open(path, create=True) as store:
        assert not store.record(invocation(1)).duplicate


@pytest.mark.parametrize("start", [1, 2, 3])
def test_a_file_of_session_buddy_comes_back_as_it_was(tmp_path: Path, start: int) -> None:
    """Rows, tables, indexes, triggers, views and what they say are the same after V4 and back."""
    path = builder.make(tmp_path / "skills.db", start)
    connection = connect(path)
    before = builder.picture(connection)
    migrate.up(connection, path)
    for _, name, _ in (row for row in builder.ddl(connection) if row[0] == "view"):
        connection.execute(f"select * from {name}").fetchall()
    migrate.down(connection, path, steps=4 - start)
    assert builder.picture(connection) == before
    assert (
        connection.execute("select name from sqlite_master where name glob 'sb_*'").fetchall() == []
    )
    connection.close()


def test_rows_recorded_at_v4_stay_on_the_way_down(tmp_path: Path) -> None:
    """Ours and Session-Buddy's own; what they do not concern is as it was."""
    path = builder.make(tmp_path / "skills.db")
    connection = connect(path)
    before = builder.picture(connection)
    migrate.up(connection, path)
    connection.close()
    with Store.open(path) as store:
        recorded = store.record(invocation(1, skill_name="new", workflow_phase="setup")).id
    connection = connect(path)
    connection.execute(
        SESSION_BUDDY_INSERT, ("review", "2026-11-21T12:00:00+00:00", "s9", 1, None, 1.0, None)
    )
    migrate.down(connection, path)
    after = builder.picture(connection)
    assert after["ddl"] == before["ddl"]
    assert after["tables"] == before["tables"]
    rows = [row for row in after["skill_invocation"] if row not in before["skill_invocation"]]
    assert [(row[0], row[1], row[14]) for row in rows] == [
        (recorded, "new", "setup"),
        (recorded + 1, "review", None),
    ]
    assert set(before["skill_invocation"]) <= set(after["skill_invocation"])
    kept = [row for row in before["skill_metrics"] if row[0] in ("commit", "odd")]
    assert [row for row in after["skill_metrics"] if row[0] in ("commit", "odd")] == kept
    (review,) = connection.execute(
        "select total_invocations, last_invoked from skill_metrics where skill_name = 'review'"
    )
    assert review == (3, "2026-11-21T12:00:00+00:00")
    connection.close()


def test_odd_rows_of_an_older_file_are_counted_and_kept(tmp_path: Path) -> None:
    """Times in any form fall into their UTC hour; one that cannot be read into none."""
    path = builder.make(tmp_path / "skills.db")
    connection = connect(path)
    migrate.up(connection, path)
    hours = connection.execute(
        "select hour, completed, failed, no_result, duration_n, duration_sum from skill_hour"
        " where skill_name = 'commit' order by hour"
    ).fetchall()
    assert hours == [
        ("2026-11-20T10", 1, 1, 0, 2, 11.5),
        ("2026-11-20T12", 2, 0, 0, 2, 2.0),
        ("2026-11-20T13", 0, 1, 1, 1, 0.0),
    ]
    cache = dict(
        connection.execute("select skill_name, last_invocation_at from skill_metrics_cache")
    )
    assert cache == {
        "commit": "2026-11-20T13:15:00",
        "review": "2026-11-21T11:00:00.750000+00:00",
    }
    connection.execute(
        SESSION_BUDDY_INSERT, ("commit", "2026-11-20 16:00:00", "s", 1, None, None, "a.b")
    )
    assert connection.execute(
        "select workflow_paths, last_invoked from skill_metrics where skill_name = 'commit'"
    ).fetchall() == [('{"a.b":1}', "2026-11-20 16:00:00")]
    connection.close()


def test_a_fresh_database_goes_down_to_nothing_and_up_again(tmp_path: Path) -> None:
    path = tmp_path / "skills.db"
    with new_store(tmp_path) as store:
        store.record(invocation(1))
        assert len(migrate.down(store.connection, path, steps=9)) == 4
        assert objects(store.connection) == set()
        assert migrate.status(store.connection, path).version == 0
        assert len(migrate.up(store.connection, path)) == 4
        assert store.connection.execute("pragma foreign_keys").fetchone() == (1,)


def test_views_and_triggers_of_other_names_are_left_alone(tmp_path: Path) -> None:
    path = builder.make(tmp_path / "skills.db")
    connection = connect(path)
    connection.execute("create view own_view as select count(*) as n from skill_invocation")
    connection.execute("create table seen (name text)")
    connection.execute(
        "create trigger own_trigger after insert on skill_invocation"
        " begin insert into seen values (new.skill_name); end"
    )
    before = builder.picture(connection)
    migrate.up(connection, path)
    connection.close()
    with Store.open(path) as store:
        many = [invocation(number, skill_name="new") for number in range(60)]
        assert store.import_batch(many).inserted == 60
        assert store.connection.execute("select * from own_view").fetchone() == (70,)
        # A batch drops and makes our triggers only: another's fires for each of its rows.
        assert store.connection.execute("select count(*) from seen").fetchone() == (60,)
        migrate.down(store.connection, path)
        assert sorted(builder.picture(store.connection)["ddl"]) == sorted(before["ddl"])


def test_better_definitions_reach_a_file_that_needs_no_migration(tmp_path: Path) -> None:
    path = tmp_path / "skills.db"
    with new_store(tmp_path) as store:
        before = builder.ddl(store.connection)
        store.connection.execute("drop view v_top_skills")
        store.connection.execute("create view v_top_skills as select 1 as of_an_older_release")
        assert migrate.up(store.connection, path) == []
        assert sorted(builder.ddl(store.connection)) == sorted(before)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("create table skill_hour (x)", "V4__phase4_extensions was not applied.* skill_hour"),
        (
            "insert into skill_migrations (version, applied_at, success)"
            " values ('V4__phase4_extensions', 'x', 0)",
            "V4__phase4_extensions failed",
        ),
        (
            "insert into skill_migrations (version, applied_at) values ('V10__x', 'x')",
            r"does not know: V10__x.*sb ingest session-buddy",
        ),
    ],
)
def test_what_cannot_be_migrated_is_refused_untouched(
    tmp_path: Path, statement: str, message: str
) -> None:
    """Session-Buddy's own rollback of V4 leaves such files behind."""
    path = builder.make(tmp_path / "skills.db")
    connection = connect(path)
    connection.execute(statement)
    connection.close()
    content = path.read_bytes()
    connection = connect(path)
    with pytest.raises(SbError, match=message):
        migrate.up(connection, path)
    connection.close()
    assert path.read_bytes() == content
    assert list(tmp_path.glob("*.backup-*")) == []


def test_another_programs_file_is_not_even_switched_to_wal(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("create table bookmarks (url)")
    content = path.read_bytes()
    with pytest.raises(SbError, match="of another kind"):
        Store.open(path, create=True)
    assert path.read_bytes() == content


def _open(path: Path) -> int:
    with Store.open(path, create=True) as store:
        return migrate.status(store.connection, path).version


def test_processes_that_open_a_new_file_together_all_succeed(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        versions = pool.map(_open, [tmp_path / str(n // 4) / "skills.db" for n in range(12)], 1)
    assert versions == [4] * 12


def test_backups_are_finished_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed process left is swept; what a living one is making is not."""
    path = tmp_path / "skills.db"
    with new_store(tmp_path) as store:
        left = tmp_path / "skills.db.backup-20200101T000000000000Z.tmp"
        left.write_text("half")
        made = tmp_path / "skills.db.backup-20200101T000000000001Z.tmp"
        with made.open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            backup = migrate.backup(store.connection, path)
            assert not left.exists()
            assert made.exists()
        assert backups.found(path) == [backup]
        assert backup.with_name(backup.name + "-wal").exists() is False
        monkeypatch.setattr(backups, "_copy", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            migrate.backup(store.connection, path)
    assert backups.found(path) == [backup]
    assert list(tmp_path.glob("*.tmp")) == []


def test_a_row_committed_just_before_a_migration_is_in_its_backup(tmp_path: Path) -> None:
    """The backup is made inside the first step's transaction, when nobody else can write."""
    path = builder.make(tmp_path / "skills.db", ordinary=[], odd=[])
    other = sqlite3.connect(path, isolation_level=None, timeout=0)
    row = ("late", "2026-11-20T10:00:00+00:00", "s", 1, None, None, None)
    seen = []

    def copy(reading: sqlite3.Connection, path: Path) -> None:
        seen.append(reading.execute("select count(*) from skill_invocation").fetchone()[0])
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute(SESSION_BUDDY_INSERT, row)

    connection = connect(path)
    other.execute(SESSION_BUDDY_INSERT, row)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backups, "make", copy)
        migrate.up(connection, path)
    connection.close()
    other.close()
    assert seen == [1]


def down_and_up(store: Store) -> Path:
    """V4 to V3 and back; returns the backup made before."""
    migrate.down(store.connection, store.path)
    migrate.up(store.connection, store.path)
    return backups.found(store.path)[0]


def hours(store: Store) -> list[tuple[object, ...]]:
    query = "select skill_name, hour, kind, completed, failed, rejected, no_result from skill_hour"
    return sorted(store.connection.execute(query))


def test_companions_come_back_from_the_backup_and_nothing_is_doubled(tmp_path: Path) -> None:
    many = [
        invocation(number, outcome=("completed", "rejected")[number % 2], kind="tool")
        for number in range(6)
    ]
    offset = FileOffset("k" * 32, "claude_code", 120, 200, 5, "f")
    with new_store(tmp_path) as store:
        store.import_batch(many, offset=offset)
        before = builder.picture(store.connection)
        counted = hours(store)
        backup = down_and_up(store)
        assert store.file_offsets("claude_code") == {}
        assert hours(store) != counted  # without companions a rejected run looks unfinished
        store.connection.execute(
            SESSION_BUDDY_INSERT, ("new", "2026-11-21T10:00:00+00:00", "s", 1, None, None, None)
        )
        returned = restore.companions(store.connection, store.path, backup)
        assert returned == restore.Returned(companions=6, without=1, offsets=1, authored=0)
        after = builder.picture(store.connection)
        assert after["skill_user_interactions"] == before["skill_user_interactions"]
        assert after["ingest_file"] == before["ingest_file"]
        assert hours(store) == [*counted, ("new", "2026-11-21T10", "skill", 1, 0, 0, 0)]
        assert store.import_batch(many).duplicates == 6
        # Again, on a file that is at V4 and complete: nothing more to give.
        again = restore.companions(store.connection, store.path, backup)
        assert again == restore.Returned(companions=0, without=1, offsets=0, authored=0)


def test_a_companion_returns_only_to_the_row_it_belongs_to(tmp_path: Path) -> None:
    with new_store(tmp_path) as store:
        for number in range(3):
            store.record(invocation(number))
        backup = down_and_up(store)
        store.connection.execute("update skill_invocation set session_id = 'other' where id = 1")
        store.connection.execute(
            "insert into skill_user_interactions (user_id, session_id, skill_name, invoked_at,"
            " completed) values ('u', 's', 'commit', 'x', 1)"
        )  # of another tool, and it takes the id 1
        returned = restore.companions(store.connection, store.path, backup)
        pairs = store.connection.execute(
            "select invocation_id, event_id from skill_user_interactions order by id"
        ).fetchall()
    assert (returned.companions, returned.without) == (2, 1)
    assert pairs == [(None, None), (2, "event-1"), (3, "event-2")]


AUTHORED = """
    insert into skill_metrics (skill_name) values ('never-used');
    insert into ab_test_configs (test_name, control_strategy, treatment_strategy, start_date)
        values ('t', 'a', 'b', '2026-11-01');
    insert into ab_test_assignments (test_id, user_id, group_name) values (1, 'u', 'control');
    insert into ab_test_outcomes (test_id, user_id, skill_name, completed)
        values (1, 'u', 'never-used', 1);
    insert into skill_categories (category_name) values ('top');
    insert into skill_categories (category_name, parent_category_id) values ('below', 1);
    insert into skill_category_mapping (skill_name, category_id) values ('never-used', 2);
    insert into skill_modalities (skill_name, modality_type) values ('never-used', 'code');
"""


def test_experiments_and_taxonomy_come_back_where_there_are_none(tmp_path: Path) -> None:
    with new_store(tmp_path) as store:
        store.record(invocation(1))
        store.connection.executescript(AUTHORED)
        before = builder.picture(store.connection)
        backup = down_and_up(store)
        store.connection.execute(
            "insert into ab_test_configs (test_name, control_strategy, treatment_strategy,"
            " start_date) values ('another', 'a', 'b', '2026-11-02')"
        )
        assert restore.companions(store.connection, store.path, backup).authored == 4
        after = builder.picture(store.connection)
        assert [row[1] for row in after["ab_test_configs"]] == ["another"]
        assert after["ab_test_outcomes"] == []
        for table in ("skill_categories", "skill_category_mapping", "skill_modalities"):
            assert after[table] == before[table]
        assert store.connection.execute("pragma foreign_key_check").fetchall() == []


def test_a_backup_without_companions_is_refused_before_anything_changes(tmp_path: Path) -> None:
    path = builder.make(tmp_path / "skills.db")
    content = path.read_bytes()
    with closing(connect(path)) as connection:
        backup = migrate.backup(connection, path)
    done = sb("migrate", "up", "--from", str(backup), "--db", str(path))
    assert isinstance(done.exception, SbError)
    assert "at version 3: it has no companions" in str(done.exception)
    assert path.read_bytes() == content


def test_a_backup_takes_the_place_of_the_database(tmp_path: Path) -> None:
    path = tmp_path / "skills.db"
    with new_store(tmp_path) as store:
        store.record(invocation(1))
        backup = migrate.backup(store.connection, path)
        store.record(invocation(2))
    kept = restore.whole_file(path, backup)
    assert kept is not None
    with Store.open(path) as store:
        assert store.connection.execute("select count(*) from skill_invocation").fetchone() == (1,)
        assert store.connection.execute("pragma journal_mode").fetchone() == ("wal",)
        assert not store.record(invocation(2)).duplicate
    assert restore.whole_file(path, kept)
    with Store.open(path) as store:
        assert store.record(invocation(2)).duplicate
    assert [one.version for one in restore.listed(path)] == [4, 4, 4]


def test_a_database_in_use_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore, "WAIT_SECONDS", 0.05)
    path = tmp_path / "skills.db"
    with new_store(tmp_path) as store:
        store.record(invocation(1))
        backup = migrate.backup(store.connection, path)
        store.record(invocation(2))
        with pytest.raises(SbError, match="in use by another process"):
            restore.whole_file(path, backup)
        assert not store.record(invocation(3)).duplicate
    with closing(connect_readonly(path)) as reading:
        reading.execute("select count(*) from skill_invocation").fetchone()
        with pytest.raises(SbError, match="in use by another process"):
            restore.whole_file(path, backup)
    assert restore.whole_file(path, backup)


@pytest.mark.parametrize("damage", ["header", "pages", "gone"])
def test_a_damaged_or_missing_database_is_replaced_and_kept_aside(
    tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "skills.db"
    with new_store(tmp_path) as store:
        for number in range(200):
            store.record(invocation(number))
        backup = migrate.backup(store.connection, path)
    content = bytearray(path.read_bytes())
    if damage == "header":
        content[:100] = b"x" * 100
    elif damage == "pages":
        content[4096 * 3 :] = b"x" * (len(content) - 4096 * 3)
    path.unlink()
    if damage != "gone":
        path.write_bytes(content)
        with pytest.raises(SbError, match=f"sb migrate restore .*{backup.name}"):
            Store.open(path).record(invocation(999))
    kept = restore.whole_file(path, backup)
    with Store.open(path) as store:
        assert store.connection.execute("select count(*) from skill_invocation").fetchone() == (
            200,
        )
    if damage == "gone":
        assert kept is None
    else:
        assert kept is not None
        assert ".damaged-" in kept.name
        assert kept.read_bytes() == content
    assert list(tmp_path.glob("*.tmp")) == []


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "no backup at"),
        (lambda path: path.write_bytes(b""), "empty database"),
        (lambda path: path.write_bytes(b"text" * 2000), "not a readable SQLite database"),
        (lambda path: path.write_bytes(path.read_bytes()[: 4096 * 20]), "damaged|malformed"),
    ],
)
def test_a_backup_that_is_not_good_changes_nothing(
    tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    path = tmp_path / "skills.db"
    with new_store(tmp_path) as store:
        store.record(invocation(1))
        backup = migrate.backup(store.connection, path)
    content = path.read_bytes()
    spoil(backup)
    with pytest.raises(SbError, match=message):
        restore.whole_file(path, backup)
    with pytest.raises(SbError, match="the database itself"):
        restore.whole_file(path, path)
    assert path.read_bytes() == content


def sb(*arguments: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(cli.sb, arguments)


def test_the_commands_bring_a_file_up_down_and_back(tmp_path: Path) -> None:
    path = builder.make(tmp_path / "skills.db")
    at = ("--db", str(path))
    assert sb("migrate", "up", "--dry-run", *at).output == "would apply V4__phase4_extensions\n"
    assert sb("migrate", "up", *at).output == "applied V4__phase4_extensions\n"
    assert sb("migrate", "up", *at).output == "nothing to do\n"
    assert sb("migrate", "down", *at).output == "undone V4__phase4_extensions\n"
    status = json.loads(sb("migrate", "status", "--json", *at).output)
    assert (status["version"], status["created_here"]) == (3, False)
    assert [backup["version"] for backup in status["backups"]] == [3, 4]
    newest = status["backups"][-1]["path"]
    back = sb("migrate", "up", "--from", newest, *at).output
    assert "returned 0 companions" in back
    assert "10 invocations have no companion" in back
    refused = sb("migrate", "up", "--to", "3", "--from", newest, *at)
    assert "companions need version 4" in str(refused.exception)
    assert sb("migrate", "restore", newest, *at).output.startswith(f"restored {newest}\nkept ")
    assert "backup   " in sb("migrate", "status", *at).output
    assert str(path) in sb("migrate", "backup", *at).output


def test_killed_migrations_leave_one_version_or_the_next() -> None:
    """Four rounds of `tests/chaos/chaos_migrate.py`."""
    assert len(chaos_migrate.run(4, seed=int.from_bytes(os.urandom(4), "big"))) == 4


def test_expected_pairs_outlive_a_way_down_and_up(tmp_path: Path) -> None:
    """They are of no version: no script makes or drops their table."""
    with new_store(tmp_path) as store:
        expected.write(store, "ruff-check", "black-format", 3.5)
        for steps in (1, 4):
            migrate.down(store.connection, store.path, steps=steps)
            migrate.up(store.connection, store.path)
        (row,) = expected.listed(store.connection)
    assert (row.skill_a, row.skill_b, row.lift) == ("black-format", "ruff-check", 3.5)
