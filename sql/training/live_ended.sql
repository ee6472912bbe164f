-- The runs that ended at :since or later, columns as in live_news.sql; where no end is recorded (other
-- tools do not), those that started at :started or later. The cross join keeps the planner from
-- reading all runs.

select i.skill_name,
       coalesce(c.user_id, ''),
       coalesce(i.workflow_phase, ''),
       coalesce(c.agent, ''),
       coalesce(c.agent_version, ''),
       coalesce(c.model, ''),
       i.invoked_at,
       c.ended_at,
       i.duration_seconds,
       coalesce(c.outcome, case
           when i.completed = 1 then 'completed'
           when coalesce(i.error_type, '') <> '' then 'failed'
           else 'no_result' end) as outcome
from (
    select invocation_id as id from skill_user_interactions where ended_at >= :since
    union all
    select l.id
    from skill_invocation l
    left join skill_user_interactions k on k.invocation_id = l.id
    where l.invoked_at >= :started and k.ended_at is null
) found
cross join skill_invocation i on i.id = found.id
left join skill_user_interactions c on c.invocation_id = i.id
