-- engine: duckdb (a primary key, and VARCHAR without a length)
-- The warehouse's own tables. All of them are derived from skills.db and can be rebuilt from it.
-- Changing a table here means raising WAREHOUSE_VERSION in sb_pipelines/resources.py.
-- TIMESTAMP columns are UTC.

-- One row: the version of this file that made the tables.
create table if not exists warehouse_version (version INTEGER);

-- How far a table has come: every row of skills.db up to id is in it. Written in the transaction
-- of the rows it covers. at = the latest invoked_at among them, NULL while there is none.
-- A result table has a row of its own name once it was computed, at = when; without one, an empty
-- table is not "nothing found" but not computed yet.
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
    duration_log_sum DOUBLE,
    duration_log_squares DOUBLE,
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

-- One row per skill_name, metric (completion_rate, avg_duration_seconds, invocation_count) and days
-- (length of the window, which ends at window_end): the line fitted through the window's days.
-- trend          improving, declining, stable or insufficient_data; then reason says why, and
--                everything from slope_per_day to q_value is NULL.
-- n              completed + failed, invocations with a duration, or invocations, in the window.
-- slope_per_day  in the metric's unit, with its 95 % interval.
-- start_value    of the line on the first day with data, with its 95 % interval; end_value on the
--                last one. change_percent = 100 * (end_value - start_value) / start_value.
-- p_value        two-sided, of no slope; q_value over the skills of one window and metric.
create table if not exists skill_trends (
    skill_name VARCHAR,
    kind VARCHAR,
    metric VARCHAR,
    days INTEGER,
    trend VARCHAR,
    n BIGINT,
    slope_per_day DOUBLE,
    slope_low DOUBLE,
    slope_high DOUBLE,
    start_value DOUBLE,
    start_low DOUBLE,
    start_high DOUBLE,
    end_value DOUBLE,
    end_low DOUBLE,
    end_high DOUBLE,
    change_percent DOUBLE,
    p_value DOUBLE,
    q_value DOUBLE,
    reason VARCHAR,
    window_end TIMESTAMP
);

-- Small numbers for names, given once and never changed; what stands on them is compared and joined
-- ten times as fast as text. A skill is a name and its kind, so that readers can choose by kind.
create table if not exists skill_key (skill INTEGER, skill_name VARCHAR, kind VARCHAR);
create table if not exists session_key (session INTEGER, session_id VARCHAR);
create table if not exists user_key (user_number INTEGER, user_id VARCHAR);

-- See the files of these names.
create table if not exists session_skill (session INTEGER, skill INTEGER);
create table if not exists user_skill (user_number INTEGER, skill INTEGER, decided BOOLEAN);
create table if not exists pair_count (a INTEGER, b INTEGER, n BIGINT);

-- One row: when the event store's newest migration was applied, as it says. Rows of the past change
-- only with that.
create table if not exists event_store (applied_at VARCHAR);

-- The authored tables of skills.db, copied whole each time; grains and columns are V4's. A value that
-- does not fit its column's type is NULL here; times stay text, as they were written.
create table if not exists ab_test_configs (
    test_id BIGINT,
    test_name VARCHAR,
    description VARCHAR,
    control_strategy VARCHAR,
    treatment_strategy VARCHAR,
    start_date VARCHAR,
    end_date VARCHAR,
    min_sample_size BIGINT,
    metrics VARCHAR,
    assignment_ratio DOUBLE,
    status VARCHAR,
    created_at VARCHAR
);
create table if not exists ab_test_assignments (
    assignment_id BIGINT,
    test_id BIGINT,
    user_id VARCHAR,
    group_name VARCHAR,
    assigned_at VARCHAR
);
create table if not exists ab_test_outcomes (
    outcome_id BIGINT,
    test_id BIGINT,
    user_id VARCHAR,
    skill_name VARCHAR,
    completed BOOLEAN,
    duration_seconds DOUBLE,
    user_rating DOUBLE,
    recorded_at VARCHAR
);
create table if not exists skill_categories (
    category_id BIGINT,
    category_name VARCHAR,
    parent_category_id BIGINT,
    description VARCHAR,
    domain VARCHAR,
    created_at VARCHAR
);
create table if not exists skill_category_mapping (
    skill_name VARCHAR,
    category_id BIGINT,
    confidence_score DOUBLE,
    assigned_at VARCHAR
);
create table if not exists skill_modalities (
    skill_name VARCHAR,
    modality_type VARCHAR,
    input_format VARCHAR,
    output_format VARCHAR,
    requires_human_review BOOLEAN,
    created_at VARCHAR
);
