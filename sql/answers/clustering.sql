-- One row: what holds for the whole grouping; none where nothing could be grouped.

select k, largest_share, stability, structure, score, shuffled_score, n_sessions, left_out
from skill_clusters
limit 1
