-- engine: duckdb (epoch_us)
-- The events of an event file (analyze/events.sql) as training_events; see facts.sql.
-- row        number from 0, by start and event id: the order of the file says nothing.
-- known_at   end, else start plus duration, else start; $delay microseconds later.
-- bucket_at  start, shifted like the outcomes: else a delay of a week would empty the week.

select
    event_id,
    row_number() over (order by invoked_at, event_id) - 1 as row,
    skill_name,
    epoch_us(invoked_at) as asked_at,
    greatest(
        epoch_us(invoked_at),
        epoch_us(invoked_at) + cast(round(duration_seconds * 1000000) as BIGINT),
        epoch_us(ended_at)
    ) + $delay as known_at,
    epoch_us(invoked_at) + $delay as bucket_at,
    coalesce(session_id, '') as session_id,
    user_id,
    workflow_phase,
    agent,
    agent_version,
    model,
    outcome
from events
