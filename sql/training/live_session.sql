-- The runs of :session: start, end, duration and outcome, in id order; the end is NULL where there
-- is no companion.

select i.skill_name, i.invoked_at, c.ended_at, i.duration_seconds,
       coalesce(c.outcome, case
           when i.completed = 1 then 'completed'
           when coalesce(i.error_type, '') <> '' then 'failed'
           else 'no_result' end)
from skill_invocation i
left join skill_user_interactions c on c.invocation_id = i.id
where i.session_id = :session and strftime('%H', i.invoked_at) is not null
order by i.id
