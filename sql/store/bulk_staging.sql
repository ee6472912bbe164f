-- One imported chunk before it is known which rows are new (seq keeps their order), and what it
-- adds up to per skill, per skill and path, and per skill and error.

create temp table incoming (
    seq integer primary key,
    skill_name text, invoked_at text, session_id text, workflow_path text, completed integer,
    duration_seconds real, error_type text, workflow_phase text, workflow_step_id text,
    user_id text, rating real, event_id text, ended_at text, project_id text, outcome text,
    kind text, source text, agent text, agent_version text, model text, "trigger" text,
    duration_source text, phase_inferred integer, tool_calls integer, tool_failures integer
);

create temp table incoming_skill (
    skill_name text primary key, n integer, completed integer, duration_n integer,
    duration_sum real, first_at text, last_at text
) without rowid;

create temp table incoming_path (
    skill_name text, key text, n integer, primary key (skill_name, key)
) without rowid;

create temp table incoming_error (
    skill_name text, key text, n integer, primary key (skill_name, key)
) without rowid;
