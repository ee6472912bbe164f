-- One row: the events of the 28 days before the day of $until, and how many of them came no later
-- in their day than $until in its own.

select
    count(*) as whole,
    count(*) filter (cast(invoked_at as TIME) <= cast($until as TIME)) as before
from events
where invoked_at >= date_trunc('day', $until) - interval 28 day
    and invoked_at < date_trunc('day', $until)
