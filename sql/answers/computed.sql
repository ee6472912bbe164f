-- When the result table $name was computed, and up to which invocation; no row: not yet.

select id, strftime("at", '%Y-%m-%dT%H:%M:%S.%f+00:00') as computed_at
from watermarks
where name = $name
