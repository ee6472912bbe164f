-- Grain: one row per number of skills that a session holds: how many sessions hold so many.

select size, count(*) as n
from (
    select count(*) as size
    from session_skill s
    join chosen_skills k on k.skill = s.skill
    group by s.session
) sizes
group by size
order by size
