-- One row: the start of the earliest event past the watermark $after; NULL without one.

select min(invoked_at) as first
from events
where id > $after
