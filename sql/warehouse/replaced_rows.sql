-- How many rows of `sample`, typed like events and read again from skills.db with ids in
-- ($after, $until], differ from what the warehouse holds for these ids, or stand on one side only.
-- 0 means: the same event store.

select count(*) as n
from sample s
full outer join (
    select id, skill_name, session_id, invoked_at
    from events
    where id > $after and id <= $until
    union all
    select id, skill_name, null, null
    from invalid_events
    where id > $after and id <= $until
) e on s.id = e.id
where s.id is null
   or e.id is null
   or s.skill_name <> e.skill_name
   or coalesce(s.invoked_at, TIMESTAMP '0001-01-01') <> coalesce(e.invoked_at, TIMESTAMP '0001-01-01')
   or (s.invoked_at is not null and s.session_id <> e.session_id)
