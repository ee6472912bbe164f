-- One row per skill and UTC day with events up to $until.
-- day          days since 1970-01-01.
-- decided      completed plus failed: the denominator of the completion rate.
-- timed        events with a duration; seconds, log_seconds, log_squares are sums over them.
--              Durations below a millisecond count as one: 0 has no logarithm.

select
    skill_name,
    date_diff('day', date '1970-01-01', cast(invoked_at as DATE)) as day,
    count(*) as invocations,
    count(*) filter (outcome = 'completed') as completed,
    count(*) filter (outcome in ('completed', 'failed')) as decided,
    count(duration_seconds) as timed,
    coalesce(sum(duration_seconds), 0) as seconds,
    -- greatest() ignores NULL: an unknown duration would count as a millisecond.
    coalesce(
        sum(ln(greatest(duration_seconds, 0.001))) filter (duration_seconds is not null), 0
    ) as log_seconds,
    coalesce(
        sum(ln(greatest(duration_seconds, 0.001)) ** 2) filter (duration_seconds is not null), 0
    ) as log_squares
from events
where invoked_at <= $until
group by skill_name, day
