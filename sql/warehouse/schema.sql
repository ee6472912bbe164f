-- engine: duckdb (a primary key, and VARCHAR without a length)
-- The warehouse's own tables. All of them are derived from skills.db and can be rebuilt from it.
-- Changing a table here means raising WAREHOUSE_VERSION in sb_pipelines/resources.py.
-- TIMESTAMP columns are UTC.

-- One row: the version of this file that made the tables.
create table if not exists warehouse_version (version INTEGER);

-- How far a table has come: every row of skills.db up to id is in it. Written in the transaction
-- of the rows it covers. at = the latest invoked_at among them, NULL while there is none.
-- A result table has a row of its own name once it was computed, at = when; without one, an empty
-- table is not "nothing found" but not computed yet. last_cluster_id: the highest cluster_id ever given.
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

-- Grain: one row per skill_name and UTC hour whose row in skill_time_series was rebuilt since it was
-- last written back to skills.db.
create table if not exists changed_hours (skill_name VARCHAR, hour TIMESTAMP);

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
create table if not exists skill_session_size (skill INTEGER, size INTEGER, n BIGINT);
create table if not exists user_skill (user_number INTEGER, skill INTEGER, decided BOOLEAN);
create table if not exists pair_count (a INTEGER, b INTEGER, n BIGINT);

-- One row: when the event store's newest migration was applied, as it says. Rows of the past change
-- only with that.
create table if not exists event_store (applied_at VARCHAR);

-- What was pruned from skills.db and so from events; copies of its sb_pruned_* tables (store/
-- pruned_tables.sql), which say what a row is. What grows from events begins with them.
create table if not exists pruned_days (day VARCHAR, n BIGINT, last_id BIGINT);
create table if not exists pruned_totals (
    day VARCHAR,
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
    last_at TIMESTAMP
);
create table if not exists pruned_users (
    user_id VARCHAR,
    skill_name VARCHAR,
    kind VARCHAR,
    agent VARCHAR,
    agent_version VARCHAR,
    model VARCHAR,
    n BIGINT,
    completed BIGINT,
    decided BIGINT,
    first_at TIMESTAMP
);
create table if not exists pruned_sessions (
    session_id VARCHAR,
    skill_name VARCHAR,
    kind VARCHAR,
    n BIGINT,
    completed BIGINT,
    duration_sum DOUBLE,
    first_at TIMESTAMP,
    last_at TIMESTAMP
);
create table if not exists pruned_hours (
    skill_name VARCHAR,
    hour TIMESTAMP,
    kind VARCHAR,
    completed BIGINT,
    failed BIGINT,
    rejected BIGINT,
    cancelled BIGINT,
    interrupted BIGINT,
    no_result BIGINT,
    duration_n BIGINT,
    duration_sum DOUBLE,
    duration_p50 DOUBLE,
    duration_p95 DOUBLE,
    duration_log_sum DOUBLE,
    duration_log_squares DOUBLE,
    unique_sessions BIGINT,
    unique_users BIGINT
);

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

-- Not V4's: pairs of skills that somebody expects to go together, see store/expected_dependencies.sql.
create table if not exists expected_dependencies (
    skill_a VARCHAR,
    skill_b VARCHAR,
    lift DOUBLE,
    created_at VARCHAR
);

-- One row per anomaly that was ever found; rows are changed, never deleted. A window of 1 to 24 hours
-- in which a skill left its expectation, or the days since a completion rate fell.
-- n               decided runs, runs, or runs with a duration in the window.
-- baseline_value  expected completion rate, number of runs, or mean duration in seconds;
--                 observed_value what was seen.
-- deviation_score z-score of the expectation's model, below 0 for a drop.
-- since           when it began; since_low to since_high hold that with 90 % of the posterior.
-- detected_at     when a search first found it; updated_at when one last saw it or changed it.
-- resolved_at     when it was over or retracted; NULL while it goes on.
-- retracted_at    set, with resolved_at, where later events made it untrue.
create table if not exists skill_anomalies (
    id BIGINT,
    skill_name VARCHAR,
    metric VARCHAR,
    anomaly_type VARCHAR,
    window_start TIMESTAMP,
    window_end TIMESTAMP,
    n BIGINT,
    baseline_value DOUBLE,
    observed_value DOUBLE,
    deviation_score DOUBLE,
    p_value DOUBLE,
    q_value DOUBLE,
    since TIMESTAMP,
    since_low TIMESTAMP,
    since_high TIMESTAMP,
    detected_at TIMESTAMP,
    updated_at TIMESTAMP,
    resolved_at TIMESTAMP,
    retracted_at TIMESTAMP
);

-- What moved with an anomaly: one row per skill_anomalies.id, role and rank (1 is the likeliest).
-- role        'cause' (a value under which runs went wrong), 'symptom' (an error type that became
--             frequent), 'share' (a value whose runs are missing or too many; bad_* are 0 then).
-- bad_before  runs that went wrong (failed, completed against expectation, slow or quick) of n_before
--             in the 28 days before since; bad_after of n_after from since on.
-- explained   part of the change that lies in this value.
-- p_value, q_value  the value against other runs of the same time (cause), before against after
--             (symptom, share); q corrected for the values tried.
-- weight      share of the evidence that this value alone sorts good from bad; NULL but for causes.
-- first_seen  start of the skill's first run with the value, from 28 days before since on.
create table if not exists skill_anomaly_factors (
    anomaly_id BIGINT,
    role VARCHAR,
    rank INTEGER,
    attribute VARCHAR,
    value VARCHAR,
    n_before BIGINT,
    bad_before BIGINT,
    n_after BIGINT,
    bad_after BIGINT,
    explained DOUBLE,
    p_value DOUBLE,
    q_value DOUBLE,
    weight DOUBLE,
    first_seen TIMESTAMP
);

-- One row per skill that enough users share. total_users, total_invocations, global_completion_rate,
-- global_avg_duration_seconds, most_common_workflow_phase, effectiveness_percentile are V4's names.
-- total_users                  see skill_baseline_counts.sql; at least min_users.
-- global_completion_rate       shrunk toward all skills' rate, with its 90 % interval
--                              completion_rate_low to _high; completion_rate_n = completed + failed,
--                              raw_completion_rate = completed / completion_rate_n.
-- global_avg_duration_seconds  mean over duration_n known durations of duration_days days, with its
--                              95 % interval duration_low to _high; NULL with fewer than two days.
-- most_common_workflow_phase   phase_n of the phased invocations with a known phase have it;
--                              phase_low to phase_high is the 95 % interval of that share.
-- effectiveness_percentile     of global_completion_rate among the skills listed (skills of them).
create table if not exists skill_community_baselines (
    skill_name VARCHAR,
    kind VARCHAR,
    total_users BIGINT,
    min_users INTEGER,
    total_invocations BIGINT,
    completion_rate_n BIGINT,
    raw_completion_rate DOUBLE,
    global_completion_rate DOUBLE,
    completion_rate_low DOUBLE,
    completion_rate_high DOUBLE,
    duration_n BIGINT,
    duration_days BIGINT,
    global_avg_duration_seconds DOUBLE,
    duration_low DOUBLE,
    duration_high DOUBLE,
    most_common_workflow_phase VARCHAR,
    phased BIGINT,
    phase_n BIGINT,
    phase_low DOUBLE,
    phase_high DOUBLE,
    effectiveness_percentile DOUBLE,
    skills BIGINT,
    last_updated TIMESTAMP
);

-- When each skill of a session was first used there; grows with first_uses.sql. See pair_order.sql.
create table if not exists session_first_use (session INTEGER, skill INTEGER, first_at TIMESTAMP);
create table if not exists pair_order (
    a INTEGER,
    b INTEGER,
    n_a_first BIGINT,
    n_b_first BIGINT,
    n_tied BIGINT
);

-- One row per pair of skills, skill_a before skill_b by name, that share at least five sessions.
-- co_occurrence_count  sessions that hold both (n_ab), of n_sessions; n_a and n_b hold each.
-- confidence_ab        n_ab / n_a: share of the sessions with skill_a that also hold skill_b, with its
--                      95 % interval; not a level of certainty. support = n_ab / n_sessions.
-- lift_score           n_sessions * n_ab / (n_a * n_b), with its 95 % interval.
-- expected             sessions with both that session sizes and skill counts alone lead to expect.
-- p_value              one-sided, of so many or more; q_value over all pairs that could be listed.
-- relationship_type    V4's name for the size of lift_score, not a test.
-- then_skill           the one of the two that more often comes second: in order_share (95 % interval
--                      order_low to order_high) of the order_n sessions that can tell; order_p_value
--                      two-sided of one half. All NULL with fewer than five such sessions.
create table if not exists skill_dependencies (
    skill_a VARCHAR,
    skill_b VARCHAR,
    kind_a VARCHAR,
    kind_b VARCHAR,
    co_occurrence_count BIGINT,
    n_sessions BIGINT,
    n_a BIGINT,
    n_b BIGINT,
    support DOUBLE,
    confidence_ab DOUBLE,
    confidence_ab_low DOUBLE,
    confidence_ab_high DOUBLE,
    confidence_ba DOUBLE,
    confidence_ba_low DOUBLE,
    confidence_ba_high DOUBLE,
    lift_score DOUBLE,
    lift_low DOUBLE,
    lift_high DOUBLE,
    expected DOUBLE,
    p_value DOUBLE,
    q_value DOUBLE,
    significant BOOLEAN,
    relationship_type VARCHAR,
    then_skill VARCHAR,
    order_n BIGINT,
    order_share DOUBLE,
    order_low DOUBLE,
    order_high DOUBLE,
    order_p_value DOUBLE,
    order_q_value DOUBLE,
    last_updated TIMESTAMP
);

-- One row per pair of expected_dependencies, compared with what was measured; computed with
-- skill_dependencies, whose columns these are. Counts may be 0; without a session of one of the skills
-- lift_score and its interval are NULL. q_value: of a pair in skill_dependencies, else NULL.
-- verdict  'found' (more often together than explained, q_value at most .05), 'not_found' (the whole
--          interval lies below expected_lift, or 1.5 where none was named), 'not_enough_data'.
create table if not exists expected_found (
    skill_a VARCHAR,
    skill_b VARCHAR,
    expected_lift DOUBLE,
    verdict VARCHAR,
    n_sessions BIGINT,
    n_a BIGINT,
    n_b BIGINT,
    co_occurrence_count BIGINT,
    lift_score DOUBLE,
    lift_low DOUBLE,
    lift_high DOUBLE,
    q_value DOUBLE,
    last_updated TIMESTAMP
);

-- One row per group of skills that are used together; none where there is nothing to group.
-- cluster_id     lasts from run to run while at least a third of the group does.
-- cluster_name   its most typical members. skills: how many it has.
-- centroid       mean of its members' unit vectors in the spectral embedding, little-endian float32.
-- k, largest_share, stability, structure, score, shuffled_score (mean of the same on shuffled
-- sessions), n_sessions (that the groups were formed on), left_out (skills in too few sessions) are
-- of the whole run and the same in every row; structure false: the groups are no better than chance.
create table if not exists skill_clusters (
    cluster_id BIGINT,
    cluster_name VARCHAR,
    description VARCHAR,
    skills BIGINT,
    centroid BLOB,
    created_at TIMESTAMP,
    k BIGINT,
    largest_share DOUBLE,
    stability DOUBLE,
    structure BOOLEAN,
    score DOUBLE,
    shuffled_score DOUBLE,
    n_sessions BIGINT,
    left_out BIGINT,
    last_updated TIMESTAMP
);

-- One row per grouped skill. membership_score: share of the skill's similarity that lies inside its
-- group, 0 to 1; n_sessions: sessions that hold the skill.
create table if not exists skill_cluster_membership (
    skill_name VARCHAR,
    kind VARCHAR,
    cluster_id BIGINT,
    membership_score DOUBLE,
    n_sessions BIGINT,
    last_updated TIMESTAMP
);

-- See predictor_totals.sql.
create table if not exists predictor_totals (
    code UBIGINT,
    scope VARCHAR,
    key VARCHAR,
    n BIGINT,
    completed BIGINT,
    decided BIGINT
);

-- One row per training of the success predictor, versions rising.
-- trained_at, span_start, span_end  now, first and last start of the runs that could teach.
-- watermark_id  every event up to this id was looked at.
-- chosen        what is served: forest_and_logistic, shrunk_rate or not_enough_data; reason says why.
-- model_chosen  whether that is the trained model.
-- features      names in the order of a row, separated by commas.
-- report        scores of every method with intervals, reliability, importances, as JSON.
create table if not exists model_registry (
    version INTEGER,
    trained_at TIMESTAMP,
    watermark_id BIGINT,
    span_start TIMESTAMP,
    span_end TIMESTAMP,
    chosen VARCHAR,
    model_chosen BOOLEAN,
    reason VARCHAR,
    n BIGINT,
    n_judged BIGINT,
    features VARCHAR,
    report VARCHAR,
    code_version VARCHAR
);

-- One row per skill of the recommendations, in the order of their arrays.
-- users            who used it; n, completed: its completed plus failed runs by all users.
-- completion_rate  of these, shrunk toward that of all skills.
create table if not exists user_similarity (
    skill INTEGER,
    skill_name VARCHAR,
    users BIGINT,
    n BIGINT,
    completed BIGINT,
    completion_rate DOUBLE
);

-- Numeric arrays, see live/arrays.sql.
create table if not exists arrays (
    name VARCHAR primary key,
    dtype VARCHAR not null,
    shape BIGINT[] not null,
    data BLOB not null
);
