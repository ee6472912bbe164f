-- Grain: one row per session and skill of the events with $after < id <= $until, from the first event on
-- of pruned sessions too; first_at is the earliest start among them.

select s.session, k.skill, min(e.invoked_at) as first_at
from (
    select session_id, skill_name, kind, invoked_at
    from events
    where id > $after and id <= $until
    union all
    select session_id, skill_name, kind, first_at
    from pruned_sessions
    where $after = 0
) e
join session_key s on s.session_id = e.session_id
join skill_key k on k.skill_name = e.skill_name and k.kind = e.kind
group by s.session, k.skill
