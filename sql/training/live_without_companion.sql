-- The runs that another tool inserted: no end is recorded, it is start plus duration. Started from
-- :day on if of :skill, from :recent on if of any skill.

select i.skill_name, coalesce(i.workflow_phase, ''), i.invoked_at, i.duration_seconds,
       case when i.completed = 1 then 'completed'
            when coalesce(i.error_type, '') <> '' then 'failed'
            else 'no_result' end
from skill_invocation i
where i.invoked_at >= :day and i.invoked_at < :at
  and (+i.skill_name = :skill or i.invoked_at >= :recent)
  and not exists (select 1 from skill_user_interactions c where c.invocation_id = i.id)
  and strftime('%H', i.invoked_at) is not null
