-- Grain: one row per skill that a session holds, by name and kind: how many sessions do.
-- log_size  sum over these sessions of the natural log of the number of skills that they hold.
-- chosen    kind is the name's main one (skill_kinds); a second kind is counted, but not listed.

select
    k.skill,
    k.skill_name,
    k.kind,
    c.skill is not null as chosen,
    cast(sum(z.n) as BIGINT) as n,
    sum(z.n * ln(z.size)) as log_size
from skill_session_size z
join skill_key k on k.skill = z.skill
left join chosen_skills c on c.skill = k.skill
group by k.skill, k.skill_name, k.kind, c.skill
order by k.skill_name, k.kind
