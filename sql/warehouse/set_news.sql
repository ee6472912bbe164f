-- The different facts of the events with $after < id <= $until that the set tables are made of; from
-- the first event on, those of pruned sessions and users too.
-- decided  it completed or failed: a run that a baseline counts.

select distinct
    skill_name,
    kind,
    session_id,
    user_id,
    case when outcome in ('completed', 'failed') then true else false end as decided
from events
where id > $after and id <= $until
union
select skill_name, kind, session_id, '', false
from pruned_sessions
where $after = 0
union
select skill_name, kind, '', user_id, true
from pruned_users
where $after = 0 and decided > 0
union
select skill_name, kind, '', user_id, false
from pruned_users
where $after = 0 and n > decided
