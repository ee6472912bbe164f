-- engine: duckdb (chr, md5_number_upper)
-- Grain of predictor_totals: one row per scope and key. What the events with $after < id <= $until add
-- to it. A live prediction adds the runs since then (training/live_news.sql).
-- key        '' for `all`; for `user_skill` the user and the skill, for `version` the skill, the
--            agent and its version, with chr(31) between them.
-- code       of scope and key, the first eight bytes of an MD5 sum; a look-up goes by it. Rows that
--            share one are told apart by scope and key.
-- decided    completed or failed.

with rows as (
    select
        skill_name,
        coalesce(user_id, '') as user_id,
        coalesce(workflow_phase, '') as workflow_phase,
        coalesce(agent, '') as agent,
        coalesce(agent_version, '') as agent_version,
        coalesce(model, '') as model,
        case when outcome = 'completed' then 1 else 0 end as completed,
        case when outcome in ('completed', 'failed') then 1 else 0 end as decided
    from events
    where id > $after and id <= $until
),
keyed as (
    select 'all' as scope, '' as key, completed, decided from rows
    union all
    select 'skill', skill_name, completed, decided from rows
    union all
    select 'user', user_id, completed, decided from rows where user_id <> ''
    union all
    select 'user_skill', user_id || chr(31) || skill_name, completed, decided
    from rows
    where user_id <> ''
    union all
    select 'version', skill_name || chr(31) || agent || chr(31) || agent_version, completed, decided
    from rows
    union all
    select 'phase', workflow_phase, completed, decided from rows
    union all
    select 'agent', agent, completed, decided from rows
    union all
    select 'model', model, completed, decided from rows
)
select
    md5_number_upper(scope || chr(31) || key) as code,
    scope,
    key,
    count(*) as n,
    cast(sum(completed) as BIGINT) as completed,
    cast(sum(decided) as BIGINT) as decided
from keyed
group by scope, key
