-- engine: duckdb (date_diff)
-- Grain: one row per skill_name and UTC hour of [$start, $end) with invocations, all kinds together.
-- hour     hours since 1970-01-01 00:00.
-- decided  completed plus failed.

select
    skill_name,
    date_diff('hour', timestamp '1970-01-01', hour) as hour,
    cast(sum(completed + failed) as BIGINT) as decided,
    cast(sum(completed) as BIGINT) as completed,
    cast(sum(n) as BIGINT) as volume,
    cast(sum(duration_n) as BIGINT) as duration_n,
    sum(duration_sum) as duration_sum
from skill_time_series
where hour >= $start and hour < $end
group by skill_name, hour
order by skill_name, hour
