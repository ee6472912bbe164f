-- What pruning leaves of the log; made by the first pruning, so a file that was never pruned has none
-- of it. Rows are counted as the warehouse counts them (durations from 0 to ten years); unknown text
-- is '', as in event_rows.sql. A day that is pruned again, because of late rows, adds rows of its own:
-- readers sum.

-- One row per UTC day that was pruned; the latest is the mark `pruned_through`.
create table sb_pruned_days (
    day text primary key,               -- 'YYYY-MM-DD'
    n integer not null,                 -- rows taken out of the log so far
    last_id integer not null,           -- the day's rows up to this id are gone
    pruned_at text not null
) without rowid;

-- Per day what skill_totals tells apart.
create table sb_pruned_totals (
    day text not null,
    skill_name text not null,
    kind text not null,
    workflow_phase text not null,
    outcome text not null,
    n integer not null,
    duration_n integer not null,
    duration_sum real not null,
    le_0_1 integer not null,            -- durations of at most 0.1 s, and so on
    le_0_5 integer not null,
    le_1 integer not null,
    le_2 integer not null,
    le_5 integer not null,
    le_10 integer not null,
    le_30 integer not null,
    le_60 integer not null,
    le_300 integer not null,
    last_at text not null               -- latest start, canonical
);

-- Per user, skill, kind, agent, version and model, over all time: what a prediction, a profile and
-- similar users start from.
create table sb_pruned_users (
    user_id text not null,
    skill_name text not null,
    kind text not null,
    agent text not null,
    agent_version text not null,
    model text not null,
    n integer not null,
    completed integer not null,
    decided integer not null,           -- completed or failed
    first_at text not null,             -- earliest start, canonical
    primary key (user_id, skill_name, kind, agent, agent_version, model)
) without rowid;

-- Per session, skill and kind, for each day: what the sets and the sessions' summary are made of.
create table sb_pruned_sessions (
    session_id text not null,
    skill_name text not null,
    kind text not null,
    n integer not null,
    completed integer not null,
    duration_sum real not null,
    first_at text not null,
    last_at text not null
);

-- The warehouse's skill_time_series of each hour as it stood.
create table sb_pruned_hours (
    hour text not null,                 -- 'YYYY-MM-DDTHH'
    skill_name text not null,
    kind text not null,
    completed integer not null,
    failed integer not null,
    rejected integer not null,
    cancelled integer not null,
    interrupted integer not null,
    no_result integer not null,
    duration_n integer not null,
    duration_sum real not null,
    duration_p50 real,
    duration_p95 real,
    duration_log_sum real not null,
    duration_log_squares real not null,
    unique_sessions integer not null,
    unique_users integer not null,
    primary key (hour, skill_name, kind)
) without rowid;

create index idx_pruned_sessions_session on sb_pruned_sessions(session_id);
