-- engine: duckdb (strftime of a TIMESTAMP)
-- Anomalies of a snapshot that are open, or whose window reaches beyond $since; retracted ones only
-- where $id names one. Of $skill_name or, NULL, of all; only $id where it is given. Open ones first,
-- then the strongest. Times as canonical text. open: it goes on.

select
    id as anomaly_id,
    skill_name,
    metric,
    anomaly_type,
    resolved_at is null as open,
    n,
    baseline_value,
    observed_value,
    deviation_score,
    p_value,
    q_value,
    strftime(window_start, '%Y-%m-%dT%H:%M:%S.%f+00:00') as window_start,
    strftime(window_end, '%Y-%m-%dT%H:%M:%S.%f+00:00') as window_end,
    strftime(since, '%Y-%m-%dT%H:%M:%S.%f+00:00') as since,
    strftime(since_low, '%Y-%m-%dT%H:%M:%S.%f+00:00') as since_low,
    strftime(since_high, '%Y-%m-%dT%H:%M:%S.%f+00:00') as since_high,
    strftime(detected_at, '%Y-%m-%dT%H:%M:%S.%f+00:00') as detected_at,
    strftime(resolved_at, '%Y-%m-%dT%H:%M:%S.%f+00:00') as resolved_at,
    strftime(retracted_at, '%Y-%m-%dT%H:%M:%S.%f+00:00') as retracted_at
from skill_anomalies
where ($skill_name is null or skill_name = $skill_name)
    and case
        when $id is not null then id = $id
        else retracted_at is null and (resolved_at is null or window_end > $since)
    end
order by open desc, abs(deviation_score) desc, id
