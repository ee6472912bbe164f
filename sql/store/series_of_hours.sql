-- The rows of skill_time_series of some skills and UTC hours (:hours, a JSON list of [skill, start of
-- the hour as canonical text]), columns and order as in write_back/skill_time_series.sql. The cross
-- join keeps the planner from reading the whole table.

select s.skill_name, s.timestamp, s.invocation_count, s.completion_rate, s.avg_duration_seconds,
       s.unique_sessions
from json_each(:hours) h
cross join skill_time_series s
where s.skill_name = json_extract(h.value, '$[0]')
  and s.timestamp = json_extract(h.value, '$[1]')
order by s.skill_name, s.timestamp
