-- The hours of pruned days that begin in [:start, :end], columns and :skill as in hours.sql. The hour
-- in which :start lies is left out unless it begins there: a part of it is not known any more.

select skill_name, hour,
       sum(completed + failed + rejected + cancelled + interrupted + no_result) as n,
       sum(completed) as completed, sum(failed) as failed, sum(duration_n) as duration_n,
       sum(duration_sum) as seconds, sum(duration_log_sum) as log_seconds,
       sum(duration_log_squares) as log_squares, sum(unique_sessions) as sessions
from sb_pruned_hours
where hour || ':00:00.000000+00:00' >= :start
  and hour <= substr(:end, 1, 13)
  and (:skill is null or skill_name = :skill)
group by skill_name, hour
order by hour, skill_name
