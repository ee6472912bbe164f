-- The different facts of the events with $after < id <= $until that the set tables are made of.
-- decided  it completed or failed: a run that a baseline counts.

select distinct
    skill_name,
    kind,
    session_id,
    user_id,
    case when outcome in ('completed', 'failed') then true else false end as decided
from events
where id > $after and id <= $until
