-- Rows for session_key: the sessions of set_news that have no number yet. Rows without a session
-- ('') are in none.

select
    cast((select coalesce(max(session), 0) from session_key)
        + row_number() over (order by session_id) as INTEGER) as session,
    session_id
from (select distinct session_id from set_news where session_id <> '') n
where not exists (select 1 from session_key k where k.session_id = n.session_id)
