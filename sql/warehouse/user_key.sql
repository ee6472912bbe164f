-- Rows for user_key: the users of set_news that have no number yet. An unknown user ('') is none.

select
    cast((select coalesce(max(user_number), 0) from user_key)
        + row_number() over (order by user_id) as INTEGER) as user_number,
    user_id
from (select distinct user_id from set_news where user_id <> '') n
where not exists (select 1 from user_key k where k.user_id = n.user_id)
