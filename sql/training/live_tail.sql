-- The counts of live_totals.sql over the runs recorded after the snapshot, id > :after: one row per
-- scope. Defaults of a row without companion as in store/event_rows.sql.

with tail as materialized (
    select i.skill_name,
           coalesce(c.user_id, '') as user_id,
           coalesce(i.workflow_phase, '') as phase,
           coalesce(c.agent, '') as agent,
           coalesce(c.agent_version, '') as version,
           coalesce(c.model, '') as model,
           coalesce(c.outcome, case
               when i.completed = 1 then 'completed'
               when coalesce(i.error_type, '') <> '' then 'failed'
               else 'no_result' end) as outcome
    from skill_invocation i not indexed
    left join skill_user_interactions c on c.invocation_id = i.id
    where i.id > :after and strftime('%H', i.invoked_at) is not null
)
select 'all' as name, count(*), total(outcome = 'completed'),
       total(outcome in ('completed', 'failed'))
from tail
union all
select 'skill', count(*), total(outcome = 'completed'), total(outcome in ('completed', 'failed'))
from tail where skill_name = :skill
union all
select 'previous', count(*), total(outcome = 'completed'),
       total(outcome in ('completed', 'failed'))
from tail where skill_name = :previous
union all
select 'user', count(*), total(outcome = 'completed'), total(outcome in ('completed', 'failed'))
from tail where user_id = :user and :user <> ''
union all
select 'user_skill', count(*), total(outcome = 'completed'),
       total(outcome in ('completed', 'failed'))
from tail where user_id = :user and :user <> '' and skill_name = :skill
union all
select 'version', count(*), total(outcome = 'completed'), total(outcome in ('completed', 'failed'))
from tail where skill_name = :skill and agent = :agent and version = :version
union all
select 'phase', count(*), total(outcome = 'completed'), total(outcome in ('completed', 'failed'))
from tail where phase = :phase
union all
select 'agent', count(*), total(outcome = 'completed'), total(outcome in ('completed', 'failed'))
from tail where agent = :agent
union all
select 'model', count(*), total(outcome = 'completed'), total(outcome in ('completed', 'failed'))
from tail where model = :model
