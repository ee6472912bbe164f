-- engine: duckdb (a temporary table for the statements after it)
-- One row per row of training_events, with whole numbers in place of names.
-- Times are microseconds since 1970, UTC.
-- asked_at    start of the run: the moment of the prediction.
-- known_at    when its outcome was known.
-- week_until  when the run leaves the seven days: they are the hour of asked_at and the 168 whole
--             hours before it, and a run belongs to the hour of bucket_at.
-- completed, decided, failed  1 or 0; decided = completed or failed.
-- user_code, user_skill, session_code  NULL where the user or the session is unknown.

create or replace temp table training_facts as
with
skills as (
    select skill_name, row_number() over (order by skill_name) as code
    from (select distinct skill_name from training_events)
),
users as (
    select user_id, row_number() over (order by user_id) as code
    from (select distinct user_id from training_events where user_id <> '')
),
sessions as (
    select session_id, row_number() over (order by session_id) as code
    from (select distinct session_id from training_events where session_id <> '')
),
phases as (
    select workflow_phase, row_number() over (order by workflow_phase) as code
    from (select distinct workflow_phase from training_events)
),
agents as (
    select agent, row_number() over (order by agent) as code
    from (select distinct agent from training_events)
),
versions as (
    select agent, agent_version, row_number() over (order by agent, agent_version) as code
    from (select distinct agent, agent_version from training_events)
),
models as (
    select model, row_number() over (order by model) as code
    from (select distinct model from training_events)
)
select
    e.row,
    e.asked_at,
    e.known_at,
    e.bucket_at - e.bucket_at % 3600000000 + 169 * 3600000000 as week_until,
    case when e.outcome = 'completed' then 1 else 0 end as completed,
    case when e.outcome in ('completed', 'failed') then 1 else 0 end as decided,
    case when e.outcome = 'failed' then 1 else 0 end as failed,
    s.code as skill,
    u.code as user_code,
    u.code * (select count(*) + 1 from skills) + s.code as user_skill,
    n.code as session_code,
    p.code as phase,
    a.code as agent_code,
    v.code * (select count(*) + 1 from skills) + s.code as skill_version,
    m.code as model_code
from training_events e
join skills s on s.skill_name = e.skill_name
left join users u on u.user_id = e.user_id
left join sessions n on n.session_id = e.session_id
join phases p on p.workflow_phase = e.workflow_phase
join agents a on a.agent = e.agent
join versions v on v.agent = e.agent and v.agent_version = e.agent_version
join models m on m.model = e.model
