-- The rows of an event file or of skills.db as they are, with every column that an analytic may
-- read: a column that the file lacks is NULL. `file` is the view or table of the rows.

select *
from (
    select
        null as event_id,
        null as skill_name,
        null as invoked_at,
        null as session_id,
        null as user_id,
        null as workflow_phase,
        null as kind,
        null as outcome,
        null as completed,
        null as duration_seconds,
        null as ended_at,
        null as agent,
        null as agent_version,
        null as model,
        null as error_type
    where false
)
union all by name
select * from file
