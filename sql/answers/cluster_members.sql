-- The members of each group, most typical first.

select cluster_id, skill_name, kind, membership_score, n_sessions
from skill_cluster_membership
order by cluster_id, membership_score desc, skill_name
