-- V4's skill_cluster_membership: one row per skill and the group it is in.

select skill_name, cluster_id, membership_score
from skill_cluster_membership
order by skill_name, cluster_id
