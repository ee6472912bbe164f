-- One row per row of temp table pruning that is in the log, with what its totals are told by; defaults
-- of a row without companion as in event_rows.sql.

create temp table pruned_rows as
select p.at,
       i.skill_name,
       i.session_id,
       coalesce(i.workflow_phase, '') as workflow_phase,
       coalesce(c.user_id, '') as user_id,
       coalesce(c.kind, 'skill') as kind,
       coalesce(c.agent, '') as agent,
       coalesce(c.agent_version, '') as agent_version,
       coalesce(c.model, '') as model,
       coalesce(c.outcome, case
           when i.completed = 1 then 'completed'
           when coalesce(i.error_type, '') <> '' then 'failed'
           else 'no_result' end) as outcome,
       case when typeof(i.duration_seconds) in ('real', 'integer')
                 and i.duration_seconds between 0 and 315360000
            then i.duration_seconds end as d
from temp.pruning p
join skill_invocation i on i.id = p.id
left join skill_user_interactions c on c.invocation_id = i.id
