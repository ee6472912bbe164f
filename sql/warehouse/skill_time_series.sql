-- Grain: one row per skill_name, kind and UTC hour that holds at least one invocation.
-- hour             start of the hour.
-- n                invocations; completed .. no_result split it by outcome.
-- completion_rate  completed / (completed + failed), a fraction; NULL where both are 0.
-- duration_n       rows whose duration is known; duration_sum, _avg, _p50, _p95 are over these, in
--                  seconds; sum 0 and the others NULL where there is none. Quantiles interpolate.
-- duration_log_sum, _log_squares are sums over these too: of the natural logs and of their squares,
--                  for fits on the log scale; below 1 ms counts as 1 ms; 0 where there is none.
--                  greatest() ignores NULL, so an unknown duration must be left out before it.
-- unique_users     known users only ('' = unknown is not counted).
-- Covers chunk $chunk of touched_hours, which lies in [$first_hour, $last_hour]; the bounds only let
-- the engine skip the rest of events.

select
    e.skill_name,
    date_trunc('hour', e.invoked_at) as hour,
    e.kind,
    count(*) as n,
    count(case when e.outcome = 'completed' then 1 end) as completed,
    count(case when e.outcome = 'failed' then 1 end) as failed,
    count(case when e.outcome = 'rejected' then 1 end) as rejected,
    count(case when e.outcome = 'cancelled' then 1 end) as cancelled,
    count(case when e.outcome = 'interrupted' then 1 end) as interrupted,
    count(case when e.outcome = 'no_result' then 1 end) as no_result,
    count(case when e.outcome = 'completed' then 1 end)
        / nullif(count(case when e.outcome in ('completed', 'failed') then 1 end), 0)
        as completion_rate,
    count(e.duration_seconds) as duration_n,
    coalesce(sum(e.duration_seconds), 0) as duration_sum,
    avg(e.duration_seconds) as duration_avg,
    percentile_cont(0.5) within group (order by e.duration_seconds) as duration_p50,
    percentile_cont(0.95) within group (order by e.duration_seconds) as duration_p95,
    coalesce(sum(
        case when e.duration_seconds >= 0 then ln(greatest(e.duration_seconds, 0.001)) end
    ), 0) as duration_log_sum,
    coalesce(sum(
        case when e.duration_seconds >= 0 then power(ln(greatest(e.duration_seconds, 0.001)), 2) end
    ), 0) as duration_log_squares,
    count(distinct e.session_id) as unique_sessions,
    count(distinct nullif(e.user_id, '')) as unique_users
from events e
join touched_hours t
    on t.skill_name = e.skill_name
   and t.hour = date_trunc('hour', e.invoked_at)
   and t.chunk = $chunk
where e.invoked_at >= cast($first_hour as TIMESTAMP)
  and e.invoked_at < cast($last_hour as TIMESTAMP) + interval 1 hour
group by e.skill_name, date_trunc('hour', e.invoked_at), e.kind
