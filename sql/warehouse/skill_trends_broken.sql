-- Rows of skill_trends that cannot be, and skills that lack theirs: a p, q or rate outside [0, 1], a
-- value outside its interval, a verdict without numbers or numbers without a verdict, a skill with
-- invocations in the last 90 days without a row for each window and metric.

select skill_name, metric, days, 'impossible' as what
from skill_trends
where (trend = 'insufficient_data') <> (p_value is null)
   or (reason is null) <> (p_value is not null)
   or trend not in ('improving', 'declining', 'stable', 'insufficient_data')
   or n < 0
   or p_value < 0
   or q_value > 1
   or q_value < p_value
   or slope_low > slope_per_day
   or slope_high < slope_per_day
   or start_low > start_value
   or start_high < start_value
   or end_low > end_value
   or end_high < end_value
   or start_low < 0
   or end_low < 0
   or (metric = 'completion_rate' and (start_high > 1 or end_high > 1))
union all
select s.skill_name, null as metric, null as days, 'missing' as what
from (
    select distinct skill_name
    from skill_time_series
    where hour <= (select max(window_end) from skill_trends)
      and hour >= (select max(window_end) from skill_trends) - interval 89 day
) s
left join (select skill_name, count(*) as n from skill_trends group by skill_name) t
    on t.skill_name = s.skill_name
where coalesce(t.n, 0) <> $rows_per_skill
order by 1, 2, 3
