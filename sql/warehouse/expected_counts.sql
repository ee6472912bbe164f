-- Grain: one row per expected pair: how many sessions hold each skill, and both. A skill that no
-- session holds, or a pair that none does, has 0.

select
    e.skill_a,
    e.skill_b,
    e.lift as expected_lift,
    cast(coalesce(x.n, 0) as BIGINT) as n_a,
    cast(coalesce(y.n, 0) as BIGINT) as n_b,
    cast(coalesce(p.n, 0) as BIGINT) as n_ab
from expected_dependencies e
left join chosen_skills a on a.skill_name = e.skill_a
left join chosen_skills b on b.skill_name = e.skill_b
left join (select skill, sum(n) as n from skill_session_size group by skill) x on x.skill = a.skill
left join (select skill, sum(n) as n from skill_session_size group by skill) y on y.skill = b.skill
left join pair_count p
    on (p.a = a.skill and p.b = b.skill) or (p.a = b.skill and p.b = a.skill)
order by e.skill_a, e.skill_b
