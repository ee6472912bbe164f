-- V1: the invocation log, its per-skill and per-session aggregates, and the migration log.
-- Table, column and index names are Session-Buddy's. Views and triggers live in ../views, ../triggers.

create table skill_migrations (
    version text primary key,
    applied_at text not null,
    description text,
    rollback_sql text,
    checksum text,
    applied_by text default 'session-buddy',
    success boolean not null default 1
);

create table skill_invocation (
    id integer primary key autoincrement,
    skill_name text not null,
    invoked_at text not null,
    session_id text not null,
    workflow_path text,
    completed boolean not null default 0,
    duration_seconds real,
    user_query text,
    alternatives_considered text,
    selection_rank integer,
    follow_up_actions text,
    error_type text,
    created_at text not null default (datetime('now'))
);

create table skill_metrics (
    skill_name text primary key,
    total_invocations integer not null default 0,
    completed_invocations integer not null default 0,
    abandoned_invocations integer not null default 0,
    total_duration_seconds real not null default 0.0,
    workflow_paths text not null default '{}',
    common_errors text not null default '{}',
    follow_up_actions text not null default '{}',
    avg_selection_rank real,
    recommendation_success_rate real,
    first_invoked text,
    last_invoked text,
    completion_rate real not null default 0.0,
    avg_duration_seconds real,
    updated_at text not null default (datetime('now'))
);

create table session_skills (
    session_id text not null,
    skill_name text not null,
    invocation_count integer not null default 1,
    primary key (session_id, skill_name)
);

create table mv_daily_skills (
    date text not null,
    skill_name text not null,
    invocations integer not null,
    completions integer not null,
    abandonments integer not null,
    avg_duration_seconds real,
    primary key (date, skill_name)
);

create virtual table skill_invocation_fts using fts5(
    user_query, content='skill_invocation', content_rowid='id'
);

create index idx_invocation_session on skill_invocation(session_id);
create index idx_invocation_skill on skill_invocation(skill_name);
create index idx_invocation_invoked_at on skill_invocation(invoked_at desc);
create index idx_invocation_session_completed on skill_invocation(session_id, completed);
create index idx_migrations_applied_at on skill_migrations(applied_at desc);
create index idx_mv_daily_date on mv_daily_skills(date desc);
create index idx_mv_daily_skill on mv_daily_skills(skill_name);
create index idx_session_skills_skill on session_skills(skill_name);
