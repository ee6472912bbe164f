-- Companions from the attached database backup, for rows of the log that have none: same id, skill,
-- session and start. The id of a companion is its invocation's, unless another tool took it.

insert into skill_user_interactions (
    id, user_id, session_id, skill_name, invoked_at, completed, rating, alternatives_considered,
    invocation_id, event_id, ended_at, project_id, outcome, kind, source, agent, agent_version,
    model, "trigger", duration_source, phase_inferred, tool_calls, tool_failures
)
select iif(exists (select 1 from main.skill_user_interactions t where t.id = c.id), null, c.id),
       c.user_id, c.session_id, c.skill_name, c.invoked_at, c.completed, c.rating,
       c.alternatives_considered, c.invocation_id, c.event_id, c.ended_at, c.project_id, c.outcome,
       c.kind, c.source, c.agent, c.agent_version, c.model, c."trigger", c.duration_source,
       c.phase_inferred, c.tool_calls, c.tool_failures
from backup.skill_user_interactions c
join main.skill_invocation i on i.id = c.invocation_id
where i.skill_name = c.skill_name and i.session_id = c.session_id and i.invoked_at = c.invoked_at
  and not exists (
      select 1 from main.skill_user_interactions t where t.invocation_id = c.invocation_id)
  and not exists (select 1 from main.skill_user_interactions t where t.event_id = c.event_id)
order by c.invocation_id;
