-- engine: duckdb (unnest of a list)
-- Grain: one row per invocation of the skills $skills that starts at $start or later, sorted so that a
-- skill's runs are found without reading the others'. What anomaly_factors.sql and
-- anomaly_seconds.sql count, once per anomaly.

select
    skill_name,
    invoked_at,
    outcome,
    duration_seconds,
    error_type,
    agent,
    agent_version,
    model,
    project_id,
    workflow_phase
from events
where skill_name in (select unnest($skills))
  and invoked_at >= $start
order by skill_name, invoked_at
