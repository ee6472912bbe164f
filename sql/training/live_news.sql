-- The runs recorded after id :after, as a live prediction counts them. Defaults of a row without
-- companion as in store/event_rows.sql; its end is NULL.

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
from skill_invocation i not indexed
left join skill_user_interactions c on c.invocation_id = i.id
where i.id > :after
