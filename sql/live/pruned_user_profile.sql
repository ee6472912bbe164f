-- user_profile.sql where days were pruned: their totals count too.

select skill_name, sum(n) as interactions, sum(completed), sum(decided)
from (
    select skill_name, count(*) as n,
           cast(total(outcome = 'completed') as integer) as completed,
           cast(total(outcome in ('completed', 'failed')) as integer) as decided
    from skill_user_interactions
    where user_id = :user
    group by skill_name
    union all
    select skill_name, n, completed, decided
    from sb_pruned_users
    where user_id = :user
) parts
group by skill_name
order by interactions desc, skill_name
