-- Grain of session_skill: one row per session and skill that it holds, whatever the number of events
-- and their outcome. Rows that set_news adds.

select distinct s.session, k.skill
from set_news n
join session_key s on s.session_id = n.session_id
join skill_key k on k.skill_name = n.skill_name and k.kind = n.kind
where not exists (
    select 1 from session_skill o where o.session = s.session and o.skill = k.skill
)
