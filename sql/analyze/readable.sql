-- The rows of skills.db, as `arriving` yields them, without those whose time cannot be read.
-- event_id  the row's id in skills.db.

select *, id as event_id
from arriving
where try_cast(cast(invoked_at as VARCHAR) as TIMESTAMPTZ) is not null
