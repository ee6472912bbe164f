-- The skills for a user of whom nothing is known: those of most users, weighed by how well they end.
-- Built-in tools are left out.
-- score  users times the shrunk completion rate.

select
    skill_name,
    total_users,
    completion_rate_n,
    global_completion_rate,
    total_users * global_completion_rate as score
from skill_community_baselines
where kind <> 'tool'
order by score desc, skill_name
limit $limit
