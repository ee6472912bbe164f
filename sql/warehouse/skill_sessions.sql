-- Grain: one row per skill_name, in the order of the names; the sessions that hold it.
-- skill     its number, of its main kind (skill_kinds); a second kind of the name is left out.
-- log_size  sum over these sessions of the natural log of the number of skills that they hold.

select k.skill, k.skill_name, k.kind, count(*) as n, sum(z.log_size) as log_size
from session_skill s
join chosen_skills k on k.skill = s.skill
join (
    select s.session, ln(count(*)) as log_size
    from session_skill s
    join chosen_skills k on k.skill = s.skill
    group by s.session
) z on z.session = s.session
group by k.skill, k.skill_name, k.kind
order by k.skill_name
