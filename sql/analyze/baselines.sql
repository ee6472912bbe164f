-- One row per skill.
-- decided  completed plus failed events.
-- users    distinct users of these events; all unknown users together are one.

select
    skill_name,
    count(*) filter (outcome = 'completed') as completed,
    count(*) as decided,
    count(distinct user_id) as users
from events
where outcome in ('completed', 'failed')
group by skill_name
order by skill_name
