-- The events of all_events without copies: a row that repeats id, skill, start and session of another
-- is the same event, as in the event store. Of copies that disagree the first by outcome stays, so
-- that the order of rows does not matter.

select *
from all_events
qualify row_number() over (
    partition by event_id, skill_name, invoked_at, session_id
    order by outcome, duration_seconds, user_id
) = 1
