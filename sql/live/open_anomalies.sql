-- engine: duckdb (strftime of a TIMESTAMP)
-- The anomalies of a snapshot that are not resolved, strongest first. Times as canonical text; what
-- is not a finite number is NULL.

select
    skill_name,
    anomaly_type,
    metric,
    strftime(window_start, '%Y-%m-%dT%H:%M:%S.%f+00:00') as window_start,
    strftime(window_end, '%Y-%m-%dT%H:%M:%S.%f+00:00') as window_end,
    n,
    case when isfinite(baseline_value) then baseline_value end as baseline_value,
    case when isfinite(observed_value) then observed_value end as observed_value,
    case when isfinite(deviation_score) then deviation_score end as deviation_score,
    case when isfinite(p_value) then p_value end as p_value,
    case when isfinite(q_value) then q_value end as q_value,
    strftime(detected_at, '%Y-%m-%dT%H:%M:%S.%f+00:00') as detected_at
from skill_anomalies
where resolved_at is null
order by abs(deviation_score) desc nulls last, skill_name, metric
