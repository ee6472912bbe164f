-- One row per skill and UTC hour with events.
-- hour  hours since 1970-01-01 00:00.

select
    skill_name,
    date_diff('hour', timestamp '1970-01-01', invoked_at) as hour,
    count(*) filter (outcome in ('completed', 'failed')) as decided,
    count(*) filter (outcome = 'completed') as completed,
    count(*) as volume,
    count(duration_seconds) as duration_n,
    coalesce(sum(duration_seconds), 0) as duration_sum
from events
group by skill_name, hour
