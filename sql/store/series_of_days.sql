-- The rows of skill_time_series of some UTC days (:days, a JSON list of 'YYYY-MM-DD'), columns and
-- order as in write_back/skill_time_series.sql. The table's index begins with the skill, so it is
-- asked skill by skill; the cross joins keep the planner from reading the whole table.

select s.skill_name, s.timestamp, s.invocation_count, s.completion_rate, s.avg_duration_seconds,
       s.unique_sessions
from skill_metrics m
cross join json_each(:days) d
cross join skill_time_series s
where s.skill_name = m.skill_name
  and s.timestamp >= d.value
  and s.timestamp < date(d.value, '+1 day')
order by s.skill_name, s.timestamp
