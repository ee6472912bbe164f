-- engine: duckdb (epoch_us)
-- The warehouse's events as training_events; see facts.sql. One row per event, in id order.
-- row  number from 0.
-- A run's hour is that of its start, as in skill_hour, which a live prediction reads.

select
    id,
    row_number() over (order by id) - 1 as row,
    skill_name,
    epoch_us(invoked_at) as asked_at,
    epoch_us(ended_at) as known_at,
    epoch_us(invoked_at) as bucket_at,
    coalesce(session_id, '') as session_id,
    coalesce(user_id, '') as user_id,
    coalesce(workflow_phase, '') as workflow_phase,
    coalesce(agent, '') as agent,
    coalesce(agent_version, '') as agent_version,
    coalesce(model, '') as model,
    outcome
from events
