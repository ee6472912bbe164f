-- V4's skill_clusters: one row per group. centroid_embedding is little-endian float32.

select
    cluster_id,
    cluster_name,
    description,
    centroid as centroid_embedding,
    strftime(created_at, '%Y-%m-%dT%H:%M:%S.%f+00:00') as created_at
from skill_clusters
order by cluster_id
