-- One row: the invocations of the 28 days before the day of $until, and how many of them came no
-- later in their day than $until in its own. Of the hour in which $until lies, the share
-- $hour_passed counts: the series has hours only.

select
    coalesce(cast(sum(n) as BIGINT), 0) as whole,
    coalesce(sum(
        case
            when extract(hour from hour) < extract(hour from $until) then n
            when extract(hour from hour) = extract(hour from $until) then n * $hour_passed
            else 0
        end
    ), 0) as before
from skill_time_series
where hour >= date_trunc('day', $until) - interval 28 day and hour < date_trunc('day', $until)
