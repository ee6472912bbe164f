-- Grain: one row per session and skill of the events with $after < id <= $until; first_at is the
-- earliest start among them.

select s.session, k.skill, min(e.invoked_at) as first_at
from events e
join session_key s on s.session_id = e.session_id
join skill_key k on k.skill_name = e.skill_name and k.kind = e.kind
where e.id > $after and e.id <= $until
group by s.session, k.skill
