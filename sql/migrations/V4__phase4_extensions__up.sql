-- V4: the fourteen analytics tables, and the tables that our recorder keeps beside them.
-- skill_user_interactions is the 1:1 companion of skill_invocation: Session-Buddy's columns first,
-- then ours, from invocation_id on.

-- Recorded -------------------------------------------------------------------------------------

create table skill_user_interactions (
    id integer primary key autoincrement,
    user_id text not null,              -- keyed hash, 32 hex; '' = unknown
    session_id text not null,
    skill_name text not null,
    invoked_at text not null,
    completed boolean not null,
    rating real,
    alternatives_considered text,
    invocation_id integer unique,       -- skill_invocation.id
    event_id text unique,               -- the source's own id; copies are dropped on it
    ended_at text,                      -- start + duration: when the outcome was known
    project_id text,                    -- keyed hash of the project's root
    outcome text check (outcome in
        ('completed', 'failed', 'rejected', 'cancelled', 'interrupted', 'no_result')),
    kind text,
    source text,
    agent text,
    agent_version text,
    model text,
    "trigger" text,
    duration_source text,
    phase_inferred boolean not null default 0,
    tool_calls integer,
    tool_failures integer,
    foreign key (skill_name) references skill_metrics(skill_name) deferrable initially deferred
);

-- Per skill and UTC hour, counts by outcome: a window is whole hours plus its raw edges.
create table skill_hour (
    skill_name text not null,
    hour text not null,                 -- 'YYYY-MM-DDTHH'
    kind text not null,
    completed integer not null default 0,
    failed integer not null default 0,
    rejected integer not null default 0,
    cancelled integer not null default 0,
    interrupted integer not null default 0,
    no_result integer not null default 0,
    duration_n integer not null default 0,
    duration_sum real not null default 0.0,
    primary key (hour, skill_name)
) without rowid;

-- How far each source file has been read, written in the transaction of the rows that it covers.
create table ingest_file (
    source text not null,
    file_key text not null,             -- keyed hash of the path
    offset integer not null,            -- bytes: reading starts here next time
    size integer not null,
    mtime_ns integer not null,
    fingerprint text not null,          -- of the first bytes: another file under the same path
    primary key (source, file_key)
) without rowid;

-- Authored -------------------------------------------------------------------------------------

create table ab_test_configs (
    test_id integer primary key autoincrement,
    test_name text not null unique,
    description text,
    control_strategy text not null,
    treatment_strategy text not null,
    start_date text not null,
    end_date text,
    min_sample_size integer default 100,
    metrics text,
    assignment_ratio real default 0.5,
    status text default 'running',
    created_at text not null default (datetime('now'))
);

create table ab_test_assignments (
    assignment_id integer primary key autoincrement,
    test_id integer not null,
    user_id text not null,
    group_name text not null,
    assigned_at text not null default (datetime('now')),
    unique (test_id, user_id),
    foreign key (test_id) references ab_test_configs(test_id)
);

create table ab_test_outcomes (
    outcome_id integer primary key autoincrement,
    test_id integer not null,
    user_id text not null,
    skill_name text not null,
    completed boolean not null,
    duration_seconds real,
    user_rating real,
    recorded_at text not null default (datetime('now')),
    foreign key (test_id) references ab_test_configs(test_id),
    foreign key (skill_name) references skill_metrics(skill_name)
);

create table skill_categories (
    category_id integer primary key autoincrement,
    category_name text not null unique,
    parent_category_id integer,
    description text,
    domain text,
    created_at text not null default (datetime('now')),
    foreign key (parent_category_id) references skill_categories(category_id)
);

create table skill_category_mapping (
    skill_name text not null,
    category_id integer not null,
    confidence_score real,
    assigned_at text not null default (datetime('now')),
    primary key (skill_name, category_id),
    foreign key (skill_name) references skill_metrics(skill_name),
    foreign key (category_id) references skill_categories(category_id)
);

create table skill_modalities (
    skill_name text primary key,
    modality_type text not null,
    input_format text,
    output_format text,
    requires_human_review boolean default 0,
    created_at text not null default (datetime('now')),
    foreign key (skill_name) references skill_metrics(skill_name)
);

-- Derived: the warehouse is their home, write-back fills them ------------------------------------

create table skill_metrics_cache (
    skill_name text primary key,
    last_invocation_at text not null,
    invocation_count_1h integer default 0,
    invocation_count_24h integer default 0,
    avg_completion_rate_24h real,
    is_anomalous boolean default 0,
    anomaly_score real,
    updated_at text not null,
    foreign key (skill_name) references skill_metrics(skill_name)
);

create table skill_time_series (
    id integer primary key autoincrement,
    skill_name text not null,
    timestamp text not null,
    invocation_count integer default 0,
    completion_rate real,
    avg_duration_seconds real,
    unique_sessions integer default 0,
    foreign key (skill_name) references skill_metrics(skill_name)
);

create table skill_anomalies (
    id integer primary key autoincrement,
    skill_name text not null,
    detected_at text not null,
    anomaly_type text not null,
    baseline_value real,
    observed_value real,
    deviation_score real,
    resolved_at text,
    foreign key (skill_name) references skill_metrics(skill_name)
);

create table skill_community_baselines (
    skill_name text primary key,
    total_users integer default 0,
    total_invocations integer default 0,
    global_completion_rate real,
    global_avg_duration_seconds real,
    most_common_workflow_phase text,
    effectiveness_percentile real,
    last_updated text not null,
    foreign key (skill_name) references skill_metrics(skill_name)
);

create table skill_clusters (
    cluster_id integer primary key autoincrement,
    cluster_name text not null unique,
    description text,
    centroid_embedding blob,
    created_at text not null
);

create table skill_cluster_membership (
    skill_name text not null,
    cluster_id integer not null,
    membership_score real,
    primary key (skill_name, cluster_id),
    foreign key (skill_name) references skill_metrics(skill_name),
    foreign key (cluster_id) references skill_clusters(cluster_id)
);

create table skill_dependencies (
    skill_a text not null,
    skill_b text not null,
    co_occurrence_count integer default 1,
    lift_score real,
    last_updated text not null default (datetime('now')),
    primary key (skill_a, skill_b),
    foreign key (skill_a) references skill_metrics(skill_name),
    foreign key (skill_b) references skill_metrics(skill_name)
);

create index idx_user_interactions_user on skill_user_interactions(user_id, invoked_at desc);
create index idx_user_interactions_skill on skill_user_interactions(skill_name, completed);
create index idx_user_interactions_session on skill_user_interactions(session_id);
create index idx_user_interactions_ended_at on skill_user_interactions(ended_at);
create index idx_ab_assignments_group on ab_test_assignments(test_id, group_name);
create index idx_ab_assignments_test_user on ab_test_assignments(test_id, user_id);
create index idx_ab_outcomes_test on ab_test_outcomes(test_id);
create index idx_ab_outcomes_user on ab_test_outcomes(test_id, user_id);
create index idx_anomalies_detected_at on skill_anomalies(detected_at desc);
create index idx_anomalies_skill on skill_anomalies(skill_name, detected_at desc);
create index idx_category_mapping_category on skill_category_mapping(category_id);
create index idx_cluster_membership_cluster on skill_cluster_membership(cluster_id);
create index idx_dependencies_lift on skill_dependencies(lift_score desc);
create index idx_dependencies_skill_a on skill_dependencies(skill_a);
create index idx_metrics_cache_updated on skill_metrics_cache(updated_at);
create index idx_time_series_skill_timestamp on skill_time_series(skill_name, timestamp desc);

-- Rows that were there before V4 have no companion; their hours are counted from the log itself.
insert into skill_hour (skill_name, hour, kind, completed, failed, no_result, duration_n, duration_sum)
select skill_name,
       case when invoked_at glob '????-??-??T??:*+00:00' then substr(invoked_at, 1, 13)
            else strftime('%Y-%m-%dT%H', invoked_at) end as hour,
       'skill',
       sum(completed = 1),
       sum(completed <> 1 and coalesce(error_type, '') <> ''),
       sum(completed <> 1 and coalesce(error_type, '') = ''),
       count(duration_seconds),
       total(duration_seconds)
from skill_invocation
where strftime('%H', invoked_at) is not null
group by skill_name, hour;

-- The latest time as time, not as text, which may stand in several forms: 23 characters in front
-- of the text make it sort. A time that cannot be read is NULL there and does not count.
insert into skill_metrics_cache (skill_name, last_invocation_at, updated_at)
select skill_name, substr(max(strftime('%Y-%m-%dT%H:%M:%f', invoked_at) || invoked_at), 24),
       strftime('%Y-%m-%dT%H:%M:%f000+00:00', 'now')
from skill_invocation
where skill_name in (select skill_name from skill_metrics)
  and julianday(invoked_at) is not null
group by skill_name;
