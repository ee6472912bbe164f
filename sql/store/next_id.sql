-- The id of the next invocation. Both halves share it; it never repeats one that was handed out
-- before, also not of a deleted row (sqlite_sequence), so that an id watermark misses nothing.

select 1 + max(
    coalesce((select max(id) from skill_invocation), 0),
    coalesce((select max(id) from skill_user_interactions), 0),
    coalesce((select max(seq) from sqlite_sequence
              where name in ('skill_invocation', 'skill_user_interactions')), 0)
)
