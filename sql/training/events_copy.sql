-- The columns of the warehouse's events that training reads.

select
    id,
    skill_name,
    invoked_at,
    ended_at,
    session_id,
    user_id,
    workflow_phase,
    outcome,
    agent,
    agent_version,
    model
from events
