"""Makes `skills.db` files as Session-Buddy itself leaves them, version by version.

The tables, columns, keys and indexes are its own; the triggers and views are short stand-ins with
the names, the columns and the weaknesses of the originals (a workflow path is spliced into a JSON
path, the last inserted time counts as the last). What our migrations make of such a file is tested
in `test_migrate`, what an import reads from one in `test_session_buddy`.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

STEMS = (
    "V1__initial_schema",
    "V2__add_semantic_search",
    "V3__add_workflow_correlation",
    "V4__phase4_extensions",
    "V5__ulid_migration",
    "V6__ulid_contract",
)

_V1 = """
    CREATE TABLE skill_migrations (
        version TEXT PRIMARY KEY,  -- the file's name
        applied_at TEXT NOT NULL, description TEXT, rollback_sql TEXT, checksum TEXT,
        applied_by TEXT DEFAULT 'session-buddy', success BOOLEAN NOT NULL DEFAULT 1);
    CREATE TABLE IF NOT EXISTS skill_invocation (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        skill_name TEXT NOT NULL,  -- which skill
        invoked_at TEXT NOT NULL, session_id TEXT NOT NULL, workflow_path TEXT,
        completed BOOLEAN NOT NULL DEFAULT 0, duration_seconds REAL, user_query TEXT,
        alternatives_considered TEXT, selection_rank INTEGER, follow_up_actions TEXT,
        error_type TEXT,
        created_at TEXT NOT NULL DEFAULT (datetime('now'))  -- when the row was made
    );
    CREATE INDEX idx_invocation_session ON skill_invocation(session_id);
    CREATE INDEX idx_invocation_skill ON skill_invocation(skill_name);
    CREATE INDEX idx_invocation_invoked_at ON skill_invocation(invoked_at DESC);
    CREATE INDEX idx_invocation_session_completed ON skill_invocation(session_id, completed);
    CREATE VIRTUAL TABLE skill_invocation_fts USING
        fts5(user_query, content=skill_invocation, content_rowid=id);
    CREATE TABLE skill_metrics (
        skill_name TEXT PRIMARY KEY, total_invocations INTEGER NOT NULL DEFAULT 0,
        completed_invocations INTEGER NOT NULL DEFAULT 0,
        abandoned_invocations INTEGER NOT NULL DEFAULT 0,
        total_duration_seconds REAL NOT NULL DEFAULT 0.0,
        workflow_paths TEXT NOT NULL DEFAULT '{}', common_errors TEXT NOT NULL DEFAULT '{}',
        follow_up_actions TEXT NOT NULL DEFAULT '{}', avg_selection_rank REAL,
        recommendation_success_rate REAL, first_invoked TEXT, last_invoked TEXT,
        completion_rate REAL NOT NULL DEFAULT 0.0, avg_duration_seconds REAL,
        updated_at TEXT NOT NULL DEFAULT (datetime('now')));
    CREATE TABLE session_skills (
        session_id TEXT NOT NULL, skill_name TEXT NOT NULL,
        invocation_count INTEGER NOT NULL DEFAULT 1, PRIMARY KEY (session_id, skill_name));
    CREATE INDEX idx_session_skills_skill ON session_skills(skill_name);
    CREATE TABLE mv_daily_skills (
        date TEXT NOT NULL, skill_name TEXT NOT NULL, invocations INTEGER NOT NULL,
        completions INTEGER NOT NULL, abandonments INTEGER NOT NULL, avg_duration_seconds REAL,
        PRIMARY KEY (date, skill_name));
    CREATE INDEX idx_mv_daily_date ON mv_daily_skills(date DESC);
    CREATE INDEX idx_mv_daily_skill ON mv_daily_skills(skill_name);
    CREATE INDEX idx_migrations_applied_at ON skill_migrations(applied_at DESC);

    CREATE TRIGGER IF NOT EXISTS trg_skill_metrics_after_insert AFTER INSERT ON skill_invocation
    BEGIN
        INSERT OR IGNORE INTO skill_metrics (skill_name, first_invoked)
        VALUES (NEW.skill_name, NEW.invoked_at);
        UPDATE skill_metrics SET
            total_invocations = total_invocations + 1,
            completed_invocations = completed_invocations + NEW.completed,
            abandoned_invocations = abandoned_invocations + 1 - NEW.completed,
            total_duration_seconds = total_duration_seconds
                + NEW.completed * IFNULL(NEW.duration_seconds, 0),
            last_invoked = NEW.invoked_at
        WHERE skill_name = NEW.skill_name;
        UPDATE skill_metrics SET workflow_paths = json_set(
            workflow_paths, '$.' || NEW.workflow_path,
            1 + IFNULL(json_extract(workflow_paths, '$.' || NEW.workflow_path), 0))
        WHERE skill_name = NEW.skill_name AND NEW.workflow_path IS NOT NULL;
        UPDATE skill_metrics SET
            completion_rate = 100.0 * completed_invocations / total_invocations,
            avg_duration_seconds = total_duration_seconds / NULLIF(completed_invocations, 0)
        WHERE skill_name = NEW.skill_name;
    END;
    CREATE TRIGGER trg_session_skills_after_insert AFTER INSERT ON skill_invocation
    BEGIN
        INSERT INTO session_skills (session_id, skill_name) VALUES (NEW.session_id, NEW.skill_name)
        ON CONFLICT DO UPDATE SET invocation_count = invocation_count + 1;
    END;

    CREATE VIEW v_session_skill_summary AS
        SELECT session_id, COUNT(DISTINCT skill_name) AS unique_skills,
               COUNT(*) AS total_invocations, SUM(completed) AS completed_count,
               SUM(1 - completed) AS abandoned_count,
               SUM(duration_seconds) AS total_duration_seconds,
               MIN(invoked_at) AS first_skill_at, MAX(invoked_at) AS last_skill_at
        FROM skill_invocation GROUP BY session_id;
    CREATE VIEW IF NOT EXISTS v_skill_effectiveness AS  -- without days_since_last_use: it moves
        SELECT skill_name, total_invocations, completed_invocations, abandoned_invocations,
               completion_rate, avg_duration_seconds, first_invoked, last_invoked
        FROM skill_metrics;
    CREATE VIEW v_top_skills AS
        SELECT skill_name, total_invocations, completion_rate, avg_duration_seconds,
               workflow_paths AS preferred_workflow
        FROM skill_metrics ORDER BY total_invocations DESC;
    CREATE VIEW v_daily_skill_source AS
        SELECT DATE(invoked_at) AS date, skill_name, COUNT(*) AS invocations,
               SUM(completed) AS completions, SUM(1 - completed) AS abandonments,
               AVG(duration_seconds) AS avg_duration_seconds
        FROM skill_invocation GROUP BY 1, 2;
"""

_V2 = """
    ALTER TABLE skill_invocation ADD COLUMN embedding BLOB;
    CREATE INDEX idx_invocation_embedding ON skill_invocation(embedding)
        WHERE embedding IS NOT NULL;
"""

_V3 = """
    ALTER TABLE skill_invocation ADD COLUMN workflow_phase TEXT;
    ALTER TABLE skill_invocation ADD COLUMN workflow_step_id TEXT;
    CREATE INDEX idx_invocation_workflow_phase ON skill_invocation(workflow_phase)
        WHERE workflow_phase IS NOT NULL;
    CREATE INDEX idx_invocation_workflow_step ON skill_invocation(workflow_step_id)
        WHERE workflow_step_id IS NOT NULL;
    CREATE INDEX idx_invocation_phase_completion ON skill_invocation(workflow_phase, completed)
        WHERE workflow_phase IS NOT NULL;
    CREATE VIEW v_skill_effectiveness_by_phase AS
        SELECT skill_name, workflow_phase, COUNT(*) AS total_invocations,
               SUM(completed) AS completed_count FROM skill_invocation GROUP BY 1, 2;
    CREATE VIEW v_workflow_phase_patterns AS
        SELECT workflow_phase, COUNT(*) AS invocations_in_phase FROM skill_invocation GROUP BY 1;
    CREATE VIEW v_skills_by_phase_usage AS
        SELECT skill_name, workflow_phase, COUNT(*) AS usage_count
        FROM skill_invocation GROUP BY 1, 2;
"""

_V4 = """
    CREATE TABLE skill_user_interactions (
        id INTEGER PRIMARY KEY AUTOINCREMENT, user_id TEXT NOT NULL, session_id TEXT NOT NULL,
        skill_name TEXT NOT NULL, invoked_at TEXT NOT NULL, completed BOOLEAN NOT NULL,
        rating REAL, alternatives_considered TEXT);
    CREATE TABLE ab_test_configs (
        test_id INTEGER PRIMARY KEY AUTOINCREMENT, test_name TEXT NOT NULL UNIQUE,
        description TEXT, control_strategy TEXT NOT NULL, treatment_strategy TEXT NOT NULL,
        start_date TEXT NOT NULL, end_date TEXT, min_sample_size INTEGER DEFAULT 100,
        metrics TEXT, assignment_ratio REAL DEFAULT 0.5, status TEXT DEFAULT 'running',
        created_at TEXT NOT NULL DEFAULT (datetime('now')));
    CREATE TABLE ab_test_assignments (
        assignment_id INTEGER PRIMARY KEY AUTOINCREMENT, test_id INTEGER NOT NULL,
        user_id TEXT NOT NULL, group_name TEXT NOT NULL,
        assigned_at TEXT NOT NULL DEFAULT (datetime('now')), UNIQUE (test_id, user_id));
    CREATE TABLE ab_test_outcomes (
        outcome_id INTEGER PRIMARY KEY AUTOINCREMENT, test_id INTEGER NOT NULL,
        user_id TEXT NOT NULL, skill_name TEXT NOT NULL, completed BOOLEAN NOT NULL,
        duration_seconds REAL, user_rating REAL,
        recorded_at TEXT NOT NULL DEFAULT (datetime('now')));
    CREATE TABLE skill_categories (
        category_id INTEGER PRIMARY KEY AUTOINCREMENT, category_name TEXT NOT NULL UNIQUE,
        parent_category_id INTEGER, description TEXT, domain TEXT,
        created_at TEXT NOT NULL DEFAULT (datetime('now')));
    CREATE TABLE skill_category_mapping (
        skill_name TEXT NOT NULL, category_id INTEGER NOT NULL, confidence_score REAL,
        assigned_at TEXT NOT NULL DEFAULT (datetime('now')), PRIMARY KEY (skill_name, category_id));
    CREATE TABLE skill_modalities (
        skill_name TEXT PRIMARY KEY, modality_type TEXT NOT NULL, input_format TEXT,
        output_format TEXT, requires_human_review BOOLEAN DEFAULT 0,
        created_at TEXT NOT NULL DEFAULT (datetime('now')));
"""

_V5 = "CREATE TABLE conversations (id TEXT PRIMARY KEY, conversation_ulid TEXT);"

ORDINARY: list[tuple[Any, ...]] = [
    # skill, start, session, completed, error, duration, path, query
    ("commit", "2026-11-20T10:00:00.000001+00:00", "s1", 1, None, 2.5, "quick", "fix the typo"),
    ("commit", "2026-11-20T10:05:00.500000+00:00", "s1", 0, "timeout", 9.0, "quick", None),
    ("review", "2026-11-20T11:00:00.250000+00:00", "s1", 1, None, 40.0, "a.b", None),
    ("review", "2026-11-21T11:00:00.750000+00:00", "s2", 0, None, None, None, None),
]

ODD: list[tuple[Any, ...]] = [
    ("commit", "2026-11-20T12:00:00Z", "s2", 1, None, 1.0, "[0]", None),
    ("commit", "2026-11-20 12:30:00", "s2", 1, None, 1.0, "", None),
    ("commit", "2026-11-20T15:00:00+02:00", "s2", 0, "", None, None, None),
    ("commit", "2026-11-20T13:15:00", "s3", 0, "[0]", 0.0, "a[0]", None),
    ("commit", "2026-13-45", "s3", 0, "a.b", 3.0, None, None),
    ("odd", "", "s3", 0, None, None, None, None),
]
"""Rows that Session-Buddy's trigger would have refused or spoiled, or stored and lost."""

INSERT = """
    insert into skill_invocation (skill_name, invoked_at, session_id, completed, error_type,
                                  duration_seconds, workflow_path, user_query)
    values (?, ?, ?, ?, ?, ?, ?, ?)
"""


def make(
    path: Path,
    version: int = 3,
    *,
    ordinary: list[tuple[Any, ...]] = ORDINARY,
    odd: list[tuple[Any, ...]] = ODD,
) -> Path:
    """Make a file of a version, 1 to 6, with rows.

    Args:
        path: Where; must not exist.
        version: Highest version applied.
        ordinary: Rows inserted past Session-Buddy's own triggers.
        odd: Rows put in beside them; they spoil a row of `skill_metrics` as well.
    """
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("pragma journal_mode = wal")
        script = "".join((_V1, _V2, _V3, _V4, _V5, "")[:version])
        connection.executescript(script)
        connection.executemany(
            "insert into skill_migrations (version, applied_at, description) values (?, ?, ?)",
            [(stem, "2026-11-01T00:00:00+00:00", "made by its runner") for stem in STEMS[:version]],
        )
        connection.execute("begin")
        connection.executemany(INSERT, ordinary)
        if odd:
            _without_triggers(connection, odd)
        if version >= 3:
            connection.execute(
                "update skill_invocation set workflow_phase = 'execution', embedding = x'00ff'"
                " where id = 1"
            )
        connection.execute("commit")
    return path


def _without_triggers(connection: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> None:
    triggers = connection.execute(
        "select name, sql from sqlite_master where type = 'trigger' order by rowid"
    ).fetchall()
    for name, _ in triggers:
        connection.execute(f"drop trigger {name}")
    connection.executemany(INSERT, rows)
    connection.execute("insert into skill_metrics (skill_name) values ('odd')")
    connection.execute(
        "update skill_metrics set workflow_paths = '{half', common_errors = ''"
        " where skill_name = 'commit'"
    )
    for _, text in triggers:
        connection.execute(text)


def ddl(connection: sqlite3.Connection) -> list[tuple[str, str, str]]:
    """Every object of a file with its text, in the order of making; not SQLite's own."""
    return connection.execute(
        "select type, name, sql from sqlite_master where name not like 'sqlite_%'"
        " and name not like 'sb_%' order by type, rowid"
    ).fetchall()


def picture(connection: sqlite3.Connection) -> dict[str, Any]:
    """All that can be seen of a file: its DDL, and the rows of every table and view."""
    objects = ddl(connection)
    seen: dict[str, Any] = {"ddl": [row for row in objects if row[0] != "table"]}
    seen["tables"] = sorted(row for row in objects if row[0] == "table")
    for kind, name, _ in objects:
        if kind in ("table", "view"):
            rows = connection.execute(f'select * from "{name}"').fetchall()
            seen[name] = sorted(rows, key=repr)
    return seen
