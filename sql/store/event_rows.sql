-- One row per invocation with :after < id <= :until, in id order: the log joined with its companion.
-- A row that another tool inserted has no companion and counts as kind 'skill', source
-- 'session_buddy', user unknown (''), outcome by completed and error_type.
-- No column is ever NULL or of two types, because the Arrow driver takes a column's type from its
-- first rows and then stops at a value of another: unknown text is '', an unknown number -1.

select i.id,
       cast(i.skill_name as text) as skill_name,
       cast(i.invoked_at as text) as invoked_at,
       coalesce(cast(c.ended_at as text), '') as ended_at,
       cast(i.session_id as text) as session_id,
       coalesce(cast(c.user_id as text), '') as user_id,
       coalesce(cast(c.project_id as text), '') as project_id,
       coalesce(cast(i.workflow_phase as text), '') as workflow_phase,
       coalesce(cast(c.kind as text), 'skill') as kind,
       coalesce(c.outcome, case
           when i.completed = 1 then 'completed'
           when coalesce(i.error_type, '') <> '' then 'failed'
           else 'no_result' end) as outcome,
       case when typeof(i.duration_seconds) in ('real', 'integer')
           then cast(i.duration_seconds as real) else -1.0 end as duration_seconds,
       coalesce(cast(i.error_type as text), '') as error_type,
       coalesce(cast(c.source as text), 'session_buddy') as source,
       coalesce(cast(c.agent as text), '') as agent,
       coalesce(cast(c.agent_version as text), '') as agent_version,
       coalesce(cast(c.model as text), '') as model,
       coalesce(cast(c."trigger" as text), '') as "trigger",
       coalesce(cast(c.duration_source as text), '') as duration_source,
       coalesce(cast(c.tool_calls as integer), -1) as tool_calls,
       coalesce(cast(c.tool_failures as integer), -1) as tool_failures
from skill_invocation i
left join skill_user_interactions c on c.invocation_id = i.id
where i.id > :after and i.id <= :until
order by i.id
