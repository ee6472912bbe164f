-- One row per known user and skill, in the order in which they were taken up; of equal times by name.
-- user_number, skill  places in uses_users.sql and uses_skills.sql, from 0.

with
skills as (
    select skill_name, row_number() over (order by skill_name) - 1 as skill
    from (select distinct skill_name from training_uses)
),
users as (
    select user_id, row_number() over (order by user_id) - 1 as user_number
    from (select distinct user_id from training_uses where user_id <> '')
)
select u.user_number, s.skill
from training_uses t
join users u on u.user_id = t.user_id
join skills s on s.skill_name = t.skill_name
order by t.first_at, s.skill
