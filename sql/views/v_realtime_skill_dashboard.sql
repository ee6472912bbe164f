-- since: V4
-- One row per skill that was ever invoked. The 1 h and 24 h windows are counted when the view is
-- read, from the log, so they decay. Rates are completed / (completed + failed), a fraction, NULL
-- where neither happened; completion_rate and avg_duration_seconds (over the rows that have a
-- duration) are over all hours of skill_hour. is_anomalous and anomaly_score come from the open rows
-- of skill_anomalies.
-- A time may stand in another form than ours and then in another place of the index, by up to its
-- offset: the days around the window are searched as text, the window is told as time.

create view v_realtime_skill_dashboard as
with day as (
    select i.skill_name,
           sum(julianday(i.invoked_at) > julianday('now', '-1 hour')) as n_1h,
           count(*) as n_24h,
           sum(i.completed = 1) as completed,
           sum(coalesce(c.outcome, iif(i.completed <> 1 and coalesce(i.error_type, '') <> '', 'failed', ''))
               = 'failed') as failed
    from skill_invocation i
    left join skill_user_interactions c on c.invocation_id = i.id
    where i.invoked_at >= date('now', '-39 hours') and i.invoked_at < date('now', '+2 days')
      and julianday(i.invoked_at) > julianday('now', '-24 hours')
      and julianday(i.invoked_at) <= julianday('now')
    group by +i.skill_name
),
lifetime as (
    select skill_name,
           1.0 * sum(completed) / nullif(sum(completed + failed), 0) as completion_rate,
           sum(duration_sum) / nullif(sum(duration_n), 0) as avg_duration_seconds
    from skill_hour group by skill_name
),
anomaly as (
    select skill_name, max(abs(deviation_score)) as score
    from skill_anomalies where resolved_at is null group by skill_name
)
select m.skill_name,
       coalesce(k.last_invocation_at, m.last_invoked) as last_invocation_at,
       coalesce(d.n_1h, 0) as invocation_count_1h,
       coalesce(d.n_24h, 0) as invocation_count_24h,
       1.0 * d.completed / nullif(d.completed + d.failed, 0) as avg_completion_rate_24h,
       a.skill_name is not null as is_anomalous,
       a.score as anomaly_score,
       m.total_invocations,
       l.completion_rate,
       l.avg_duration_seconds
from skill_metrics m
left join skill_metrics_cache k using (skill_name)
left join day d using (skill_name)
left join lifetime l using (skill_name)
left join anomaly a using (skill_name)
where m.total_invocations > 0
order by invocation_count_24h desc, m.total_invocations desc;
