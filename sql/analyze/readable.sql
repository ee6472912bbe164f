-- The rows of skills.db, as `arriving` yields them, without those whose time cannot be read.
-- event_id          the row's id in skills.db.
-- duration_seconds  NULL, unknown, beyond ten years, as in the warehouse.

select
    * replace (case when duration_seconds <= 315360000 then duration_seconds end as duration_seconds),
    id as event_id
from arriving
where try_cast(cast(invoked_at as VARCHAR) as TIMESTAMPTZ) is not null
