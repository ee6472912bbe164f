-- What cannot be added up from hours, for the skills of the JSON array :skills in (:after, :until]:
-- one row per skill.
-- unique_sessions   distinct sessions
-- p50_*, p95_*      the two known durations, in rising order, between which the percentile lies
--                   (the same one twice at the upper end); NULL where no duration is known
--
-- The unary plus keeps SQLite on the index on invoked_at.

with chosen as materialized (
    select i.skill_name,
           i.session_id,
           case when i.duration_seconds between 0 and 315360000 then i.duration_seconds end as d
    from skill_invocation i
    where i.invoked_at > :after and i.invoked_at <= :until
      and +i.skill_name in (select value from json_each(:skills))
      and strftime('%H', i.invoked_at) is not null
      and i.invoked_at glob '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*'
      and date(substr(i.invoked_at, 1, 10), '+0 days') = substr(i.invoked_at, 1, 10)
      and (length(i.invoked_at) = 10 or i.invoked_at glob '??????????[ T][0-2][0-9]:*[0-9Z]')
      and substr(i.invoked_at, 12, 2) <> '24'
      and i.invoked_at not glob '* [+-]*'
),
placed as (
    select skill_name,
           d,
           row_number() over (partition by skill_name order by d) - 1 as place,
           count(*) over (partition by skill_name) - 1 as last
    from chosen
    where d is not null
),
durations as (
    select skill_name,
           max(last) + 1 as duration_n,
           max(case when place = cast(0.5 * last as integer) then d end) as p50_low,
           max(case when place = min(cast(0.5 * last as integer) + 1, last) then d end) as p50_high,
           max(case when place = cast(0.95 * last as integer) then d end) as p95_low,
           max(case when place = min(cast(0.95 * last as integer) + 1, last) then d end) as p95_high
    from placed
    group by skill_name
),
sessions as (
    select skill_name, count(distinct session_id) as unique_sessions
    from chosen
    group by skill_name
)
select skill_name, unique_sessions, duration_n, p50_low, p50_high, p95_low, p95_high
from sessions left join durations using (skill_name)
