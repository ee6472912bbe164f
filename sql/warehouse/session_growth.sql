-- Grain: one row per session of new_session_skill; how many skills it held before, and holds after.

select n.session, coalesce(h.size, 0) as before, coalesce(h.size, 0) + n.size as after
from (select session, count(*) as size from new_session_skill group by session) n
left join (select session, count(*) as size from held group by session) h on h.session = n.session
