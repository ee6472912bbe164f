-- The latest start of one skill in (:after, :until], for skills whose very latest start lies later.

select invoked_at from skill_invocation
where invoked_at > :after and invoked_at <= :until and +skill_name = :skill_name
  and strftime('%H', invoked_at) is not null
  and invoked_at glob '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*'
  and date(substr(invoked_at, 1, 10), '+0 days') = substr(invoked_at, 1, 10)
  and (length(invoked_at) = 10 or invoked_at glob '??????????[ T][0-2][0-9]:*[0-9Z]')
  and substr(invoked_at, 12, 2) <> '24'
  and invoked_at not glob '* [+-]*'
order by invoked_at desc
limit 1
