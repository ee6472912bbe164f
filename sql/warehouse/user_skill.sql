-- Grain of user_skill: one row per known user, skill that they used, and whether that use was decided
-- (completed or failed); a user may have both rows of a skill. Rows that set_news adds.

select distinct u.user_number, k.skill, n.decided
from set_news n
join user_key u on u.user_id = n.user_id
join skill_key k on k.skill_name = n.skill_name and k.kind = n.kind
where not exists (
    select 1
    from user_skill o
    where o.user_number = u.user_number and o.skill = k.skill and o.decided = n.decided
)
