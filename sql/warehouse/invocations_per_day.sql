-- One row per UTC day of [$start, $end) that holds invocations, all kinds, in order.

select date_trunc('day', hour) as day, cast(sum(n) as BIGINT) as n
from skill_time_series
where hour >= $start and hour < $end
group by date_trunc('day', hour)
order by day
