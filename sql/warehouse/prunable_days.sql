-- Grain: one row per UTC day before $before that holds events, in order: their number and greatest id.

select date_trunc('day', invoked_at) as day, count(*) as n, max(id) as last_id
from events
where invoked_at < $before
group by date_trunc('day', invoked_at)
order by day
