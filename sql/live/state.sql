-- Where the log stands, in one row.
-- last_id, last_at   the newest invocation; 0 and NULL where there is none
-- migrated           changes when the file was migrated, which may give old rows a companion

select coalesce(i.id, 0) as last_id,
       i.invoked_at as last_at,
       (select count(*) || ' ' || max(applied_at) from skill_migrations) as migrated
from (select 1)
left join skill_invocation i on i.id = (select max(id) from skill_invocation)
