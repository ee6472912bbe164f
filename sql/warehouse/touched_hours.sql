-- Grain: one row per skill_name and UTC hour that must be rebuilt: those of events past the series'
-- watermark ($after), and those of the asked window [$window_start, $window_end) that hold events or
-- series rows. Pruned hours are those of the first rebuild ($after = 0).
-- chunk  the hours are rebuilt chunk by chunk, of about $chunk_rows events each, to bound memory.

select
    skill_name,
    hour,
    cast(floor((sum(n) over (order by hour, skill_name) - 1) / $chunk_rows) as BIGINT) as chunk
from (
    select touched.skill_name, touched.hour, max(touched.n) + coalesce(sum(s.n), 0) as n
    from (
        select skill_name, date_trunc('hour', invoked_at) as hour, count(*) as n
        from events
        where id > $after
           or (invoked_at >= $window_start and invoked_at < $window_end)
        group by skill_name, date_trunc('hour', invoked_at)
        union all
        select skill_name, hour, 0 as n
        from skill_time_series
        where hour >= $window_start and hour < $window_end
        union all
        select skill_name, hour, 0 as n
        from pruned_hours
        where $after = 0 or (hour >= $window_start and hour < $window_end)
    ) touched
    left join skill_time_series s on s.skill_name = touched.skill_name and s.hour = touched.hour
    group by touched.skill_name, touched.hour
) hours
