-- How many rows user_skill and recounted_user_skill do not share, told by names: numbers depend on the
-- order of arrival. A row that is there twice counts too.

select count(*) as n
from (
    select u.user_id, k.skill_name, k.kind, t.decided, count(*) as times
    from user_skill t
    join user_key u on u.user_number = t.user_number
    join skill_key k on k.skill = t.skill
    group by u.user_id, k.skill_name, k.kind, t.decided
) g
full outer join (
    select u.user_id, k.skill_name, k.kind, t.decided, count(*) as times
    from recounted_user_skill t
    join recounted_user_key u on u.user_number = t.user_number
    join recounted_skill_key k on k.skill = t.skill
    group by u.user_id, k.skill_name, k.kind, t.decided
) r on g.user_id = r.user_id and g.skill_name = r.skill_name and g.kind = r.kind
    and g.decided = r.decided
where g.times is null or r.times is null or g.times <> r.times
