-- engine: duckdb (reads an Arrow stream, try_cast, to_microseconds, regexp_full_match)
-- One row per invocation of skills.db with $after < id <= $until, typed, as `arriving` yields them.
-- Unknown values arrive as '' and -1 (see store/event_rows.sql) and become NULL here. Every column is
-- cast, because of a stream without rows the driver takes any column for whole numbers.
-- invoked_at        NULL where it cannot be read as a time of the years 1 to 9999. Text without an
--                   offset means UTC. The detour over TIMESTAMPTZ is needed: a cast of text to
--                   TIMESTAMP drops an offset without a word. The canonical form goes the fast way.
--                   What else the cast would take is left out, so that it is the same times that
--                   SQLite reads: triggers/trg_skill_hour_after_insert.sql has the other half.
-- ended_at          when the outcome was known: the end as recorded, else start + duration, else the
--                   start.
-- user_id           keyed hash; the one text that stays '' where unknown.
-- duration_seconds  NULL, unknown, unless it is a number from 0 to ten years, the recorder's bounds.

select
    id,
    skill_name,
    invoked_at,
    greatest(
        invoked_at,
        coalesce(ended, invoked_at + to_microseconds(cast(duration_seconds * 1000000 as BIGINT)))
    ) as ended_at,
    session_id,
    user_id,
    project_id,
    workflow_phase,
    kind,
    outcome,
    duration_seconds,
    error_type,
    source,
    agent,
    agent_version,
    model,
    trigger,
    duration_source,
    tool_calls,
    tool_failures
from (
    select
        cast(id as BIGINT) as id,
        cast(skill_name as VARCHAR) as skill_name,
        cast(invoked_at as VARCHAR) as text,
        case
            when text like '____-__-__T__:__:__.______+00:00' and substr(text, 12, 2) <> '24'
                then try_cast(text as TIMESTAMP)
            when regexp_full_match(
                text,
                '\d{4}-\d\d-\d\d([ T]([01]\d|2[0-3]):\d\d(:\d\d(\.\d+)?)?(Z|[+-](0\d|1[0-4]):[0-5]\d)?)?'
            ) then cast(try_cast(text as TIMESTAMPTZ) as TIMESTAMP)
        end as moment,
        case
            when moment >= TIMESTAMP '0001-01-01' and moment < TIMESTAMP '9999-12-31' then moment
        end as invoked_at,
        cast(try_cast(cast(ended_at as VARCHAR) as TIMESTAMPTZ) as TIMESTAMP) as ended,
        cast(session_id as VARCHAR) as session_id,
        cast(user_id as VARCHAR) as user_id,
        nullif(cast(project_id as VARCHAR), '') as project_id,
        nullif(cast(workflow_phase as VARCHAR), '') as workflow_phase,
        cast(kind as VARCHAR) as kind,
        cast(outcome as VARCHAR) as outcome,
        case
            when duration_seconds between 0 and 315360000 then cast(duration_seconds as DOUBLE)
        end as duration_seconds,
        nullif(cast(error_type as VARCHAR), '') as error_type,
        cast(source as VARCHAR) as source,
        nullif(cast(agent as VARCHAR), '') as agent,
        nullif(cast(agent_version as VARCHAR), '') as agent_version,
        nullif(cast(model as VARCHAR), '') as model,
        nullif(cast(trigger as VARCHAR), '') as trigger,
        nullif(cast(duration_source as VARCHAR), '') as duration_source,
        nullif(try_cast(tool_calls as INTEGER), -1) as tool_calls,
        nullif(try_cast(tool_failures as INTEGER), -1) as tool_failures
    from arriving
    where id > $after and id <= $until
) typed
