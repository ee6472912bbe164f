-- The groups, the largest first; $skill_name narrows them to the one that holds it (NULL: all).
-- Times as canonical text.

select
    cluster_id,
    cluster_name,
    description,
    skills,
    strftime(created_at, '%Y-%m-%dT%H:%M:%S.%f+00:00') as created_at
from skill_clusters
where $skill_name is null
   or cluster_id in (
       select cluster_id from skill_cluster_membership where skill_name = $skill_name
   )
order by skills desc, cluster_id
