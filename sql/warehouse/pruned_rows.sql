-- engine: duckdb (strftime of a TIMESTAMP)
-- The events of the UTC day that begins at $day, in the order of their ids; their starts as canonical
-- text.

select id, strftime(invoked_at, '%Y-%m-%dT%H:%M:%S.%f+00:00') as at
from events
where invoked_at >= $day and invoked_at < $day + interval 1 day
order by id
