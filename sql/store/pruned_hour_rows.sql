-- The hours of sb_pruned_hours for the warehouse; an unknown quantile is -1, because the Arrow driver
-- takes a column's type from its first rows.

select skill_name, hour || ':00:00' as hour, kind, completed, failed, rejected, cancelled, interrupted,
       no_result, duration_n, duration_sum, coalesce(duration_p50, -1.0) as duration_p50,
       coalesce(duration_p95, -1.0) as duration_p95, duration_log_sum, duration_log_squares,
       unique_sessions, unique_users
from sb_pruned_hours
