-- engine: duckdb (strftime of a TIMESTAMP)
-- The rows of skill_time_series of the UTC day that begins at $day, columns as in sb_pruned_hours
-- (store/pruned_tables.sql).

select
    strftime(hour, '%Y-%m-%dT%H') as hour,
    skill_name,
    kind,
    completed,
    failed,
    rejected,
    cancelled,
    interrupted,
    no_result,
    duration_n,
    duration_sum,
    duration_p50,
    duration_p95,
    duration_log_sum,
    duration_log_squares,
    unique_sessions,
    unique_users
from skill_time_series
where hour >= $day and hour < $day + interval 1 day
order by hour, skill_name, kind
