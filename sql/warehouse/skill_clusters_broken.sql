-- What cannot be in skill_clusters and skill_cluster_membership: a group without members or a member
-- without its group, a count that is wrong, a share outside [0, 1], a name or a skill twice.

select c.cluster_name as name, 'impossible' as what
from skill_clusters c
left join (
    select cluster_id, count(*) as n from skill_cluster_membership group by cluster_id
) m on m.cluster_id = c.cluster_id
where coalesce(m.n, 0) <> c.skills
   or c.k <> (select count(*) from skill_clusters)
   or c.largest_share < 0
   or c.largest_share > 1
   or c.stability > 1
   or c.created_at > c.last_updated
union all
select m.skill_name as name, 'impossible' as what
from skill_cluster_membership m
left join skill_clusters c on c.cluster_id = m.cluster_id
where c.cluster_id is null
   or m.membership_score < 0
   or m.membership_score > 1
   or m.n_sessions <= 0
union all
select cluster_name as name, 'twice' as what
from skill_clusters
group by cluster_name
having count(*) > 1
union all
select skill_name as name, 'twice' as what
from skill_cluster_membership
group by skill_name
having count(*) > 1
order by 1, 2
