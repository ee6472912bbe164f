-- The companion of one invocation, written first: the trigger on skill_invocation reads it.
-- A second row with the same event_id is dropped.

insert into skill_user_interactions (
    id, invocation_id, user_id, session_id, skill_name, invoked_at, completed, rating, event_id,
    ended_at, project_id, outcome, kind, source, agent, agent_version, model, "trigger",
    duration_source, phase_inferred, tool_calls, tool_failures
) values (
    :id, :id, :user_id, :session_id, :skill_name, :invoked_at, :completed, :rating, :event_id,
    :ended_at, :project_id, :outcome, :kind, :source, :agent, :agent_version, :model, :trigger,
    :duration_source, :phase_inferred, :tool_calls, :tool_failures
)
on conflict (event_id) do nothing
