-- The rows of skills.db, as `arriving` yields them, without those whose time cannot be read.

select *
from arriving
where try_cast(cast(invoked_at as VARCHAR) as TIMESTAMPTZ) is not null
