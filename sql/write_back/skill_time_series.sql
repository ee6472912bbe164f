-- V4's skill_time_series for changed_hours: one row per skill_name and UTC hour, all kinds
-- together (a name has one kind). In the order of its key.
-- timestamp             start of the hour, canonical text.
-- completion_rate       completed / (completed + failed), a fraction; NULL where both are 0.
-- avg_duration_seconds  over the rows whose duration is known; NULL where there is none.

select
    skill_name,
    strftime(hour, '%Y-%m-%dT%H:%M:%S.000000+00:00') as timestamp,
    cast(sum(n) as BIGINT) as invocation_count,
    sum(completed) / nullif(sum(completed + failed), 0) as completion_rate,
    sum(duration_sum) / nullif(sum(duration_n), 0) as avg_duration_seconds,
    cast(sum(unique_sessions) as BIGINT) as unique_sessions
from skill_time_series
where (skill_name, hour) in (select skill_name, hour from changed_hours)
group by skill_name, hour
order by skill_name, hour
