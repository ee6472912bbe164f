-- What row :id is about, to notice that the file was replaced by another log.

select skill_name || ' ' || invoked_at || ' ' || session_id
from skill_invocation
where id = :id
