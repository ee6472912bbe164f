-- Rows of skill_community_baselines that cannot be: a rate outside [0, 1] or its interval, a count
-- larger than the whole, a skill of fewer users than may be shown, a skill twice; and the table when
-- it is empty although a skill could be shown.

select skill_name, 'impossible' as what
from skill_community_baselines
where global_completion_rate < completion_rate_low
   or global_completion_rate > completion_rate_high
   or completion_rate_low < 0
   or completion_rate_high > 1
   or completion_rate_n <= 0
   or completion_rate_n > total_invocations
   or duration_n > total_invocations
   or global_avg_duration_seconds < coalesce(duration_low, 0)
   or global_avg_duration_seconds > duration_high
   or phase_n > phased
   or effectiveness_percentile < 0
   or effectiveness_percentile > 100
   or total_users < min_users
   or min_users <> (select case when count(*) > 1 then $k else 1 end from user_key)
union all
select skill_name, 'twice' as what
from skill_community_baselines
group by skill_name
having count(*) > 1
union all
select 'every skill' as skill_name, 'missing' as what
from (
    select count(*) as n
    from (
        select s.skill
        from user_skill s
        where s.decided
        group by s.skill
        having count(distinct s.user_number) >= $k
    ) shared
) expected
where n > 0 and (select count(*) from skill_community_baselines) = 0
order by 1, 2
