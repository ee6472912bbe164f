-- What :user did: one row per skill, most used first, then by name.
-- Columns: skill_name, interactions, completed, completed + failed.

select skill_name,
       count(*) as interactions,
       cast(total(outcome = 'completed') as integer),
       cast(total(outcome in ('completed', 'failed')) as integer)
from skill_user_interactions
where user_id = :user
group by skill_name
order by interactions desc, skill_name
