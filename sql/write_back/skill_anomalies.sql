-- V4's skill_anomalies, one row per anomaly; times as canonical text. In the order of its key.
-- detected_at   when it was first found.
-- resolved_at   when it was over, or turned out to be untrue; NULL while it goes on.

select
    id,
    skill_name,
    strftime(detected_at, '%Y-%m-%dT%H:%M:%S.%f+00:00') as detected_at,
    anomaly_type,
    baseline_value,
    observed_value,
    deviation_score,
    strftime(resolved_at, '%Y-%m-%dT%H:%M:%S.%f+00:00') as resolved_at
from skill_anomalies
order by id
