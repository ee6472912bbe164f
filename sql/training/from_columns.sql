-- The columns that the program registered as training_given, typed, as training_events; see
-- facts.sql. A column in which every value is missing would otherwise have no type to compare.

create or replace temp table training_events as
select
    row,
    asked_at,
    known_at,
    bucket_at,
    cast(skill_name as VARCHAR) as skill_name,
    cast(session_id as VARCHAR) as session_id,
    cast(user_id as VARCHAR) as user_id,
    cast(workflow_phase as VARCHAR) as workflow_phase,
    cast(agent as VARCHAR) as agent,
    cast(agent_version as VARCHAR) as agent_version,
    cast(model as VARCHAR) as model,
    cast(outcome as VARCHAR) as outcome
from training_given
