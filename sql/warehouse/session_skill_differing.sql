-- How many rows session_skill and recounted_session_skill do not share, told by names: numbers depend
-- on the order of arrival. A row that is there twice counts too.

select count(*) as n
from (
    select s.session_id, k.skill_name, k.kind, count(*) as times
    from session_skill t
    join session_key s on s.session = t.session
    join skill_key k on k.skill = t.skill
    group by s.session_id, k.skill_name, k.kind
) g
full outer join (
    select s.session_id, k.skill_name, k.kind, count(*) as times
    from recounted_session_skill t
    join recounted_session_key s on s.session = t.session
    join recounted_skill_key k on k.skill = t.skill
    group by s.session_id, k.skill_name, k.kind
) r on g.session_id = r.session_id and g.skill_name = r.skill_name and g.kind = r.kind
where g.times is null or r.times is null or g.times <> r.times
