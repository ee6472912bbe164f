-- One row per user and skill; user_id '' stands for all unknown users together.
-- decided   completed plus failed events.
-- first_at  first use, microseconds since 1970; 0 where no time is known.

select
    user_id,
    skill_name,
    count(*) filter (outcome = 'completed') as completed,
    count(*) filter (outcome in ('completed', 'failed')) as decided,
    coalesce(min(epoch_us(invoked_at)), 0) as first_at
from events
group by user_id, skill_name
order by user_id, skill_name
