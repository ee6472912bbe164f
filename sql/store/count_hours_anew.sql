-- Fills skill_hour from the log and its companions, by the rules of trg_skill_hour_after_insert.

delete from skill_hour;

insert into skill_hour (
    skill_name, hour, kind, completed, failed, rejected, cancelled, interrupted, no_result,
    duration_n, duration_sum
)
select skill_name, hour, min(kind),
       sum(outcome = 'completed'), sum(outcome = 'failed'), sum(outcome = 'rejected'),
       sum(outcome = 'cancelled'), sum(outcome = 'interrupted'), sum(outcome = 'no_result'),
       count(duration_seconds), total(duration_seconds)
from (
    select i.skill_name,
           case when i.invoked_at glob '????-??-??T??:*+00:00' then substr(i.invoked_at, 1, 13)
                else strftime('%Y-%m-%dT%H', i.invoked_at) end as hour,
           coalesce(c.kind, 'skill') as kind,
           coalesce(c.outcome, case
               when i.completed = 1 then 'completed'
               when coalesce(i.error_type, '') <> '' then 'failed'
               else 'no_result' end) as outcome,
           i.duration_seconds
    from skill_invocation i
    left join skill_user_interactions c on c.invocation_id = i.id
    where strftime('%H', i.invoked_at) is not null
)
group by hour, skill_name;
