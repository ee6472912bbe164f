-- Deletes from temp table incoming what is there already or stands in it twice (the first stays):
-- by event id, or without one by session, skill and start. The + keep SQLite on the index of
-- invoked_at: a session may have many thousand rows, a microsecond hardly two.

delete from temp.incoming where event_id is not null and event_id in (
    select event_id from skill_user_interactions);

delete from temp.incoming where event_id is not null and seq not in (
    select min(seq) from temp.incoming where event_id is not null group by event_id);

delete from temp.incoming where event_id is null and (
    exists (select 1 from skill_invocation i
            where i.invoked_at = incoming.invoked_at
              and +i.session_id = incoming.session_id and +i.skill_name = incoming.skill_name)
    or seq not in (
        select min(seq) from temp.incoming group by session_id, skill_name, invoked_at));
