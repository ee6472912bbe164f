-- Grain: one row per number of skills that a session holds: how many sessions hold so many.

select size, cast(round(sum(n) / size) as BIGINT) as n
from skill_session_size
group by size
order by size
