-- Those of window_rows.sql that have an id above :after, found by id.

select i.invoked_at,
       i.id,
       i.skill_name,
       coalesce(c.kind, 'skill') as kind,
       coalesce(c.outcome, case
           when i.completed = 1 then 'completed'
           when coalesce(i.error_type, '') <> '' then 'failed'
           else 'no_result' end) as outcome,
       case when i.duration_seconds between 0 and 315360000 then i.duration_seconds end
           as duration_seconds,
       i.session_id
from skill_invocation i not indexed
left join skill_user_interactions c on c.invocation_id = i.id
where i.id > :after
  and i.invoked_at > :start
  and strftime('%H', i.invoked_at) is not null
  and i.invoked_at glob '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*'
  and date(substr(i.invoked_at, 1, 10), '+0 days') = substr(i.invoked_at, 1, 10)
  and (length(i.invoked_at) = 10 or i.invoked_at glob '??????????[ T][0-2][0-9]:*[0-9Z]')
  and substr(i.invoked_at, 12, 2) <> '24'
  and i.invoked_at not glob '* [+-]*'
