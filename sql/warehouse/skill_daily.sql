-- Grain: one row per skill_name and UTC day with invocations that started in [$start, $until], from
-- the hours of skill_time_series; what a trend is fitted to.
-- invocations          of every outcome.
-- decided              completed + failed, the denominator of the completion rate.
-- timed                invocations whose duration is known; seconds, log_seconds and log_squares are
--                      sums over them.

select
    skill_name,
    date_trunc('day', hour) as day,
    cast(sum(n) as BIGINT) as invocations,
    cast(sum(completed) as BIGINT) as completed,
    cast(sum(completed + failed) as BIGINT) as decided,
    cast(sum(duration_n) as BIGINT) as timed,
    sum(duration_sum) as seconds,
    sum(duration_log_sum) as log_seconds,
    sum(duration_log_squares) as log_squares
from skill_time_series
where hour >= $start and hour <= $until
group by skill_name, date_trunc('day', hour)
order by skill_name, day
