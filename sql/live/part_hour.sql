-- Part of an hour, from the log: invocations that started in (:after, :until]. One row per skill,
-- columns as in hours.sql. An hour's own text ('YYYY-MM-DDTHH') sorts before all of its rows and
-- equals none, so it serves as a bound on either side.

select skill_name, max(kind),
       sum(outcome = 'completed'), sum(outcome = 'failed'), sum(outcome = 'rejected'),
       sum(outcome = 'cancelled'), sum(outcome = 'interrupted'), sum(outcome = 'no_result'),
       count(d), total(d)
from (
    select i.skill_name,
           coalesce(c.kind, 'skill') as kind,
           coalesce(c.outcome, case
               when i.completed = 1 then 'completed'
               when coalesce(i.error_type, '') <> '' then 'failed'
               else 'no_result' end) as outcome,
           case when i.duration_seconds between 0 and 315360000 then i.duration_seconds end as d
    from skill_invocation i
    left join skill_user_interactions c on c.invocation_id = i.id
    where i.invoked_at > :after and i.invoked_at <= :until
      and strftime('%H', i.invoked_at) is not null
      and i.invoked_at glob '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*'
      and date(substr(i.invoked_at, 1, 10), '+0 days') = substr(i.invoked_at, 1, 10)
      and (length(i.invoked_at) = 10 or i.invoked_at glob '??????????[ T][0-2][0-9]:*[0-9Z]')
      and substr(i.invoked_at, 12, 2) <> '24'
      and i.invoked_at not glob '* [+-]*'
)
group by skill_name
