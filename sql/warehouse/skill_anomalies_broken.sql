-- Rows of skill_anomalies that cannot be: a p, q or rate outside [0, 1], a score of the wrong sign,
-- dates out of order, the same event open twice, factors of no row.

select id, skill_name, metric, 'impossible' as what
from skill_anomalies
where metric not in ('completion', 'volume', 'duration')
   or anomaly_type not in ('drop', 'spike', 'pattern_shift')
   or n < 0
   or p_value < 0
   or p_value > 1
   or q_value < 0
   or q_value > 1
   or baseline_value < 0
   or observed_value < 0
   or (metric = 'completion' and (baseline_value > 1 or observed_value > 1))
   or (anomaly_type = 'drop' and deviation_score > 0)
   or (anomaly_type = 'spike' and deviation_score < 0)
   or window_start is null
   or window_start >= window_end
   or since_low > since
   or since_high < since
   or updated_at < detected_at
   or resolved_at < detected_at
   or (retracted_at is not null and resolved_at is null)
union all
select min(id) as id, skill_name, metric, 'open twice' as what
from skill_anomalies
where resolved_at is null
group by skill_name, metric, anomaly_type, window_start
having count(*) > 1
union all
select f.anomaly_id as id, f.attribute as skill_name, f.role as metric, 'of no row' as what
from skill_anomaly_factors f
left join skill_anomalies a on a.id = f.anomaly_id
where a.id is null
order by 1
