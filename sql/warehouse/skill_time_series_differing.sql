-- engine: duckdb (is distinct from)
-- How many rows of skill_time_series differ from recounted_skill_time_series, or stand on one side
-- only. Sums of floating point numbers may differ in their last digits.

select count(*) as n
from skill_time_series g
full outer join recounted_skill_time_series r
    on g.skill_name = r.skill_name and g.hour = r.hour and g.kind = r.kind
where g.n is distinct from r.n
   or g.completed is distinct from r.completed
   or g.failed is distinct from r.failed
   or g.rejected is distinct from r.rejected
   or g.cancelled is distinct from r.cancelled
   or g.interrupted is distinct from r.interrupted
   or g.no_result is distinct from r.no_result
   or g.completion_rate is distinct from r.completion_rate
   or g.duration_n is distinct from r.duration_n
   or abs(g.duration_sum - r.duration_sum) > 0.000000001 * (1 + r.duration_sum)
   or abs(g.duration_avg - r.duration_avg) > 0.000000001 * (1 + r.duration_avg)
   or g.duration_p50 is distinct from r.duration_p50
   or g.duration_p95 is distinct from r.duration_p95
   or abs(g.duration_log_sum - r.duration_log_sum) > 0.000000001 * (1 + r.duration_log_squares)
   or abs(g.duration_log_squares - r.duration_log_squares)
       > 0.000000001 * (1 + r.duration_log_squares)
   or g.unique_sessions is distinct from r.unique_sessions
   or g.unique_users is distinct from r.unique_users
