-- How many rows of skill_session_size and recounted_skill_session_size differ or stand on one side
-- only, told by names: numbers depend on the order of arrival.

select count(*) as n
from (
    select k.skill_name, k.kind, t.size, sum(t.n) as n, count(*) as times
    from skill_session_size t
    join skill_key k on k.skill = t.skill
    group by k.skill_name, k.kind, t.size
) g
full outer join (
    select k.skill_name, k.kind, t.size, sum(t.n) as n, count(*) as times
    from recounted_skill_session_size t
    join recounted_skill_key k on k.skill = t.skill
    group by k.skill_name, k.kind, t.size
) r on g.skill_name = r.skill_name and g.kind = r.kind and g.size = r.size
where g.n is null or r.n is null or g.n <> r.n or g.times <> r.times
