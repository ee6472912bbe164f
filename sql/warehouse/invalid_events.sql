-- One row per invocation of `arriving` whose start could not be read, as it stands. They were loaded
-- into events without a start, and are deleted there afterwards.

select cast(id as BIGINT) as id, cast(invoked_at as VARCHAR) as invoked_at, skill_name
from arriving
where id in (select id from events where invoked_at is null)
