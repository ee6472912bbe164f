-- Fills skill_hour from the log and its companions, by the rules of trg_skill_hour_after_insert.

delete from skill_hour;

insert into skill_hour (
    skill_name, hour, kind, completed, failed, rejected, cancelled, interrupted, no_result,
    duration_n, duration_sum
)
select skill_name, hour, min(kind),
       sum(outcome = 'completed'), sum(outcome = 'failed'), sum(outcome = 'rejected'),
       sum(outcome = 'cancelled'), sum(outcome = 'interrupted'), sum(outcome = 'no_result'),
       count(seconds), total(seconds)
from (
    select i.skill_name,
           case
               when i.invoked_at not glob '*[+-][0-9][0-9]:[0-9][0-9]'
                   or i.invoked_at glob '*+00:00'
                   then substr(i.invoked_at, 1, 10) || 'T'
                       || iif(length(i.invoked_at) = 10, '00', substr(i.invoked_at, 12, 2))
               when instr(i.invoked_at, '.') then strftime('%Y-%m-%dT%H',
                   substr(i.invoked_at, 1, instr(i.invoked_at, '.') - 1)
                       || substr(i.invoked_at, -6))
               else strftime('%Y-%m-%dT%H', i.invoked_at) end as hour,
           coalesce(c.kind, 'skill') as kind,
           coalesce(c.outcome, case
               when i.completed = 1 then 'completed'
               when coalesce(i.error_type, '') <> '' then 'failed'
               else 'no_result' end) as outcome,
           case when i.duration_seconds between 0 and 315360000 then i.duration_seconds end as seconds
    from skill_invocation i
    left join skill_user_interactions c on c.invocation_id = i.id
    where strftime('%H', i.invoked_at) is not null
        and i.invoked_at glob '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*'
        and date(substr(i.invoked_at, 1, 10), '+0 days') = substr(i.invoked_at, 1, 10)
        and (length(i.invoked_at) = 10 or i.invoked_at glob '??????????[ T][0-2][0-9]:*[0-9Z]')
        and substr(i.invoked_at, 12, 2) <> '24'
        and i.invoked_at not glob '* [+-]*'
)
where hour >= '0001' and hour < '9999-12-31'
group by hour, skill_name;
