-- The counters of V4's skill_metrics_cache, one row per skill, as they stood at $now: they cannot
-- decay by themselves. v_realtime_skill_dashboard counts its windows when it is read and does not
-- look at them. The windows are (now - 1 h, now] and (now - 24 h, now], by start.
-- is_anomalous, anomaly_score  whether an anomaly is open, and the deviation score of the strongest.
-- avg_completion_rate_24h  completed / (completed + failed), a fraction; NULL where both are 0.

select
    t.skill_name,
    coalesce(d.n_1h, 0) as invocation_count_1h,
    coalesce(d.n_24h, 0) as invocation_count_24h,
    d.completed / nullif(d.decided, 0) as avg_completion_rate_24h,
    case when a.score is null then 0 else 1 end as is_anomalous,
    a.score as anomaly_score,
    strftime(cast($now as TIMESTAMP), '%Y-%m-%dT%H:%M:%S.%f+00:00') as updated_at
from (select distinct skill_name from skill_totals) t
left join (
    select
        skill_name,
        count(case when invoked_at > cast($now as TIMESTAMP) - interval 1 hour then 1 end) as n_1h,
        count(*) as n_24h,
        count(case when outcome = 'completed' then 1 end) as completed,
        count(case when outcome in ('completed', 'failed') then 1 end) as decided
    from events
    where invoked_at > cast($now as TIMESTAMP) - interval 24 hour
      and invoked_at <= cast($now as TIMESTAMP)
    group by skill_name
) d on d.skill_name = t.skill_name
left join (
    select skill_name, max_by(deviation_score, abs(deviation_score)) as score
    from skill_anomalies
    where resolved_at is null
    group by skill_name
) a on a.skill_name = t.skill_name
order by t.skill_name
