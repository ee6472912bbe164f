-- since: V1
-- views/v_daily_skill_source.sql in a file of which days were pruned: their totals count too.

create view v_daily_skill_source as
select date, skill_name,
       sum(n) as invocations,
       sum(completions) as completions,
       sum(n) - sum(completions) as abandonments,
       total(seconds) / nullif(sum(timed), 0) as avg_duration_seconds
from (
    select case when invoked_at glob '????-??-??T??:*+00:00' and date(invoked_at) is not null
                then substr(invoked_at, 1, 10)
                else date(invoked_at) end as date,
           skill_name, count(*) as n, sum(completed = 1) as completions,
           count(duration_seconds) as timed, total(duration_seconds) as seconds
    from skill_invocation
    group by 1, skill_name
    union all
    select day, skill_name, n, iif(outcome = 'completed', n, 0), duration_n, duration_sum
    from sb_pruned_totals
) parts
group by date, skill_name;
