-- engine: duckdb (a primary key, and VARCHAR without a length)
-- The warehouse's own tables. All of them are derived from skills.db and can be rebuilt from it.
-- Changing a table here means raising WAREHOUSE_VERSION in sb_pipelines/resources.py.
-- TIMESTAMP columns are UTC.

-- One row: the version of this file that made the tables.
create table if not exists warehouse_version (version INTEGER);

-- How far a table has come: every row of skills.db up to id is in it. Written in the transaction
-- of the rows it covers. at = the latest invoked_at among them, NULL while there is none.
create table if not exists watermarks (
    name VARCHAR PRIMARY KEY,
    id BIGINT,
    "at" TIMESTAMP
);

-- One row per invocation whose start can be read; ids rise in commit order.
create table if not exists events (
    id BIGINT,
    skill_name VARCHAR,
    invoked_at TIMESTAMP,
    ended_at TIMESTAMP,
    session_id VARCHAR,
    user_id VARCHAR,
    project_id VARCHAR,
    workflow_phase VARCHAR,
    kind VARCHAR,
    outcome VARCHAR,
    duration_seconds DOUBLE,
    error_type VARCHAR,
    source VARCHAR,
    agent VARCHAR,
    agent_version VARCHAR,
    model VARCHAR,
    trigger VARCHAR,
    duration_source VARCHAR,
    tool_calls INTEGER,
    tool_failures INTEGER
);

-- One row per invocation whose start cannot be read; kept as it stands, counted in no other table.
create table if not exists invalid_events (
    id BIGINT,
    invoked_at VARCHAR,
    skill_name VARCHAR
);

-- See skill_time_series.sql.
create table if not exists skill_time_series (
    skill_name VARCHAR,
    hour TIMESTAMP,
    kind VARCHAR,
    n BIGINT,
    completed BIGINT,
    failed BIGINT,
    rejected BIGINT,
    cancelled BIGINT,
    interrupted BIGINT,
    no_result BIGINT,
    completion_rate DOUBLE,
    duration_n BIGINT,
    duration_sum DOUBLE,
    duration_avg DOUBLE,
    duration_p50 DOUBLE,
    duration_p95 DOUBLE,
    unique_sessions BIGINT,
    unique_users BIGINT
);

-- See skill_totals.sql.
create table if not exists skill_totals (
    skill_name VARCHAR,
    kind VARCHAR,
    workflow_phase VARCHAR,
    outcome VARCHAR,
    n BIGINT,
    duration_n BIGINT,
    duration_sum DOUBLE,
    le_0_1 BIGINT,
    le_0_5 BIGINT,
    le_1 BIGINT,
    le_2 BIGINT,
    le_5 BIGINT,
    le_10 BIGINT,
    le_30 BIGINT,
    le_60 BIGINT,
    le_300 BIGINT,
    last_invoked_at TIMESTAMP
);

-- Grain: one row per UTC day whose hours in skill_time_series were rebuilt since they were last
-- written back to skills.db.
create table if not exists changed_days (day TIMESTAMP);
