-- One row of the log.

insert into skill_invocation (
    id, skill_name, invoked_at, session_id, workflow_path, completed, duration_seconds, error_type,
    workflow_phase, workflow_step_id
) values (
    :id, :skill_name, :invoked_at, :session_id, :workflow_path, :completed, :duration_seconds,
    :error_type, :workflow_phase, :workflow_step_id
)
