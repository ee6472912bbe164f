-- engine: duckdb (strftime of a TIMESTAMP)
-- What moved with the anomaly $id, the likeliest first within each role. Times as canonical text.

select
    role,
    attribute,
    value,
    n_before,
    bad_before,
    n_after,
    bad_after,
    explained,
    p_value,
    q_value,
    weight,
    strftime(first_seen, '%Y-%m-%dT%H:%M:%S.%f+00:00') as first_seen
from skill_anomaly_factors
where anomaly_id = $id
order by role, rank
