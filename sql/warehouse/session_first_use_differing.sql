-- How many rows of session_first_use and recounted_session_first_use differ or stand on one side only,
-- told by names: numbers depend on the order of arrival. A row that is there twice counts too.

select count(*) as n
from (
    select s.session_id, k.skill_name, k.kind, min(t.first_at) as first_at, count(*) as times
    from session_first_use t
    join session_key s on s.session = t.session
    join skill_key k on k.skill = t.skill
    group by s.session_id, k.skill_name, k.kind
) g
full outer join (
    select s.session_id, k.skill_name, k.kind, min(t.first_at) as first_at, count(*) as times
    from recounted_session_first_use t
    join recounted_session_key s on s.session = t.session
    join recounted_skill_key k on k.skill = t.skill
    group by s.session_id, k.skill_name, k.kind
) r on g.session_id = r.session_id and g.skill_name = r.skill_name and g.kind = r.kind
where g.times is null or r.times is null or g.times <> r.times or g.first_at <> r.first_at
