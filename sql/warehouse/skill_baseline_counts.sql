-- Grain: one row per skill_name, all its kinds together; what the community's baselines are made of.
-- invocations          of every outcome; completed and failed among them.
-- users                distinct known users whose use completed or failed; a skill that only unknown
--                      users used so counts as one user's.
-- all_users            known users of this installation, any skill.
-- phase, phase_n       the most frequent workflow phase and its invocations, NULL and 0 where no phase
--                      is known; phased is the invocations with a known phase.
-- duration_n           invocations with a known duration, duration_sum their seconds.
-- duration_days        UTC days that they lie on.
-- duration_variance    of duration_sum / duration_n as a ratio of daily sums, so that slow days count
--                      as one piece of evidence each; NULL with fewer than two days.

select
    t.skill_name,
    t.invocations,
    t.completed,
    t.failed,
    greatest(coalesce(u.users, 0), 1) as users,
    (select count(*) from user_key) as all_users,
    p.workflow_phase as phase,
    coalesce(p.n, 0) as phase_n,
    coalesce(p.phased, 0) as phased,
    t.duration_n,
    t.duration_sum,
    coalesce(d.duration_days, 0) as duration_days,
    d.duration_variance
from (
    select
        skill_name,
        cast(sum(n) as BIGINT) as invocations,
        cast(sum(case when outcome = 'completed' then n else 0 end) as BIGINT) as completed,
        cast(sum(case when outcome = 'failed' then n else 0 end) as BIGINT) as failed,
        cast(sum(duration_n) as BIGINT) as duration_n,
        sum(duration_sum) as duration_sum
    from skill_totals
    group by skill_name
) t
left join (
    select k.skill_name, count(distinct s.user_number) as users
    from user_skill s
    join skill_key k on k.skill = s.skill
    where s.decided
    group by k.skill_name
) u on u.skill_name = t.skill_name
left join (
    select
        skill_name,
        workflow_phase,
        n,
        cast(sum(n) over (partition by skill_name) as BIGINT) as phased,
        row_number() over (partition by skill_name order by n desc, workflow_phase) as place
    from (
        select skill_name, workflow_phase, cast(sum(n) as BIGINT) as n
        from skill_totals
        where workflow_phase <> 'unknown'
        group by skill_name, workflow_phase
    ) phases
) p on p.skill_name = t.skill_name and p.place = 1
left join (
    select
        skill_name,
        count(*) as duration_days,
        case when count(*) > 1 then
            sum(power(seconds - mean * n, 2)) * count(*) / (count(*) - 1) / power(sum(n), 2)
        end as duration_variance
    from (
        select
            skill_name,
            n,
            seconds,
            sum(seconds) over (partition by skill_name)
                / sum(n) over (partition by skill_name) as mean
        from (
            select
                skill_name,
                date_trunc('day', hour) as day,
                sum(duration_n) as n,
                sum(duration_sum) as seconds
            from skill_time_series
            where duration_n > 0
            group by skill_name, date_trunc('day', hour)
        ) sums
    ) days
    group by skill_name
) d on d.skill_name = t.skill_name
order by t.skill_name
