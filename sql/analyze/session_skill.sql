-- One row per session and skill that it holds, whatever the number of events; of $kind, or of all
-- kinds where that is NULL. Rows without a session are left out.
-- session, skill  numbers from 0, in the order of the texts.

select
    dense_rank() over (order by session_id) - 1 as session,
    dense_rank() over (order by skill_name) - 1 as skill,
    skill_name
from (
    select distinct session_id, skill_name
    from events
    where session_id <> '' and ($kind is null or kind = $kind)
)
