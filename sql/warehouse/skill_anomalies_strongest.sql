-- The open anomalies, strongest first, at most $limit.

select skill_name, metric, anomaly_type, deviation_score, since, q_value, n
from skill_anomalies
where resolved_at is null
order by abs(deviation_score) desc, skill_name, metric
limit $limit
