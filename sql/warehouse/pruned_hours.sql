-- Rows of skill_time_series, as it has them, for the hours of touched_hours that were pruned: as they
-- stood, and added to what events there are of them now. Those are rows that came late: counts and
-- sums add, a quantile stays what it was, sessions and users count twice where they are in both.

select
    p.skill_name,
    p.hour,
    p.kind,
    p.completed + p.failed + p.rejected + p.cancelled + p.interrupted + p.no_result
        + coalesce(s.n, 0) as n,
    p.completed + coalesce(s.completed, 0) as completed,
    p.failed + coalesce(s.failed, 0) as failed,
    p.rejected + coalesce(s.rejected, 0) as rejected,
    p.cancelled + coalesce(s.cancelled, 0) as cancelled,
    p.interrupted + coalesce(s.interrupted, 0) as interrupted,
    p.no_result + coalesce(s.no_result, 0) as no_result,
    (p.completed + coalesce(s.completed, 0)) / nullif(
        p.completed + p.failed + coalesce(s.completed, 0) + coalesce(s.failed, 0), 0
    ) as completion_rate,
    p.duration_n + coalesce(s.duration_n, 0) as duration_n,
    p.duration_sum + coalesce(s.duration_sum, 0) as duration_sum,
    (p.duration_sum + coalesce(s.duration_sum, 0))
        / nullif(p.duration_n + coalesce(s.duration_n, 0), 0) as duration_avg,
    coalesce(p.duration_p50, s.duration_p50) as duration_p50,
    coalesce(p.duration_p95, s.duration_p95) as duration_p95,
    p.duration_log_sum + coalesce(s.duration_log_sum, 0) as duration_log_sum,
    p.duration_log_squares + coalesce(s.duration_log_squares, 0) as duration_log_squares,
    p.unique_sessions + coalesce(s.unique_sessions, 0) as unique_sessions,
    p.unique_users + coalesce(s.unique_users, 0) as unique_users
from pruned_hours p
join touched_hours t on t.skill_name = p.skill_name and t.hour = p.hour
left join skill_time_series s
    on s.skill_name = p.skill_name and s.hour = p.hour and s.kind = p.kind
