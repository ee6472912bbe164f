-- Rows of the log that have no companion: another tool's, or recorded after the backup.

select count(*) from skill_invocation i
where not exists (select 1 from skill_user_interactions c where c.invocation_id = i.id)
