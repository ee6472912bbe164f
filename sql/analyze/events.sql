-- One row per event, typed. Whatever the file's own types are, values go through text, so that
-- Parquet, CSV and NDJSON mean the same; what cannot be read is NULL here and named by refused.sql.
-- event_id          the file's own, else the number of the row.
-- invoked_at        UTC; a time without an offset is taken for UTC.
-- user_id           '' where unknown.
-- kind              NULL where unknown.
-- outcome           the file's own, else by `completed`: true, false, NULL are completed, failed,
--                   no_result.
-- ended_at          NULL where unknown.
-- agent, agent_version, model  '' where unknown, like workflow_phase.
-- duration_seconds  NULL, unknown, unless it is a number from 0 to 1e12: a file may hold any measured
--                   value in its place, only not so much that no date could be its end.

select
    coalesce(cast(event_id as VARCHAR), cast(row_number() over () as VARCHAR)) as event_id,
    cast(skill_name as VARCHAR) as skill_name,
    cast(try_cast(cast(invoked_at as VARCHAR) as TIMESTAMPTZ) as TIMESTAMP) as invoked_at,
    cast(session_id as VARCHAR) as session_id,
    coalesce(cast(user_id as VARCHAR), '') as user_id,
    coalesce(cast(workflow_phase as VARCHAR), '') as workflow_phase,
    cast(kind as VARCHAR) as kind,
    coalesce(
        cast(outcome as VARCHAR),
        case try_cast(cast(completed as VARCHAR) as BOOLEAN)
            when true then 'completed'
            when false then 'failed'
            else 'no_result'
        end
    ) as outcome,
    case
        when try_cast(cast(duration_seconds as VARCHAR) as DOUBLE) between 0 and 1e12
            then try_cast(cast(duration_seconds as VARCHAR) as DOUBLE)
    end as duration_seconds,
    cast(try_cast(cast(ended_at as VARCHAR) as TIMESTAMPTZ) as TIMESTAMP) as ended_at,
    coalesce(cast(agent as VARCHAR), '') as agent,
    coalesce(cast(agent_version as VARCHAR), '') as agent_version,
    coalesce(cast(model as VARCHAR), '') as model,
    cast(error_type as VARCHAR) as error_type
from given
