-- Rows of skill_time_series that cannot be: a rate outside [0, 1], outcomes that do not add up to n,
-- more durations, sessions or users than invocations, a negative duration, disordered quantiles, a
-- sum of logs beyond what its squares allow.

select skill_name, hour, kind
from skill_time_series
where completion_rate < 0
   or completion_rate > 1
   or n <= 0
   or n <> completed + failed + rejected + cancelled + interrupted + no_result
   or duration_n < 0
   or duration_n > n
   or duration_sum < 0
   or duration_p50 < 0
   or duration_p50 > duration_p95
   or duration_log_squares < 0
   or duration_log_sum * duration_log_sum > 1.000001 * duration_n * duration_log_squares + 0.000001
   or unique_sessions > n
   or unique_users > n
order by hour, skill_name, kind
