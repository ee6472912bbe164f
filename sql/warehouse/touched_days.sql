-- Grain: one row per UTC day whose hours must be rebuilt: the days of events past the series'
-- watermark ($after), and the days of the asked window [$window_start, $window_end) that hold events
-- or series rows.
-- n      events of the day.
-- chunk  the days are rebuilt chunk by chunk, of about $chunk_rows events each, to bound memory.

select
    day,
    n,
    cast(floor((sum(n) over (order by day) - 1) / $chunk_rows) as BIGINT) as chunk
from (
    select d.day, count(e.id) as n
    from (
        select date_trunc('day', invoked_at) as day
        from events
        where id > $after
           or (invoked_at >= $window_start and invoked_at < $window_end)
        union
        select date_trunc('day', hour) as day
        from skill_time_series
        where hour >= $window_start and hour < $window_end
    ) d
    left join events e on date_trunc('day', e.invoked_at) = d.day
    group by d.day
) days
