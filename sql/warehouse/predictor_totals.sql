-- engine: duckdb (chr, md5_number_upper)
-- Grain of predictor_totals: one row per scope and key. What the events with $after < id <= $until add
-- to it; from the first event on, pruned rows too. A live prediction adds the runs since then
-- (training/live_news.sql).
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
        1 as n,
        case when outcome = 'completed' then 1 else 0 end as completed,
        case when outcome in ('completed', 'failed') then 1 else 0 end as decided
    from events
    where id > $after and id <= $until
    union all
    select skill_name, user_id, null, agent, agent_version, model, n, completed, decided
    from pruned_users
    where $after = 0
),
keyed as (
    select 'all' as scope, '' as key, n, completed, decided from rows
    union all
    select 'skill', skill_name, n, completed, decided from rows
    union all
    select 'user', user_id, n, completed, decided from rows where user_id <> ''
    union all
    select 'user_skill', user_id || chr(31) || skill_name, n, completed, decided
    from rows
    where user_id <> ''
    union all
    select 'version', skill_name || chr(31) || agent || chr(31) || agent_version, n, completed, decided
    from rows
    union all
    select 'phase', workflow_phase, n, completed, decided from rows where workflow_phase is not null
    union all
    select
        'phase',
        coalesce(workflow_phase, ''),
        n,
        case when outcome = 'completed' then n else 0 end,
        case when outcome in ('completed', 'failed') then n else 0 end
    from pruned_totals
    where $after = 0
    union all
    select 'agent', agent, n, completed, decided from rows
    union all
    select 'model', model, n, completed, decided from rows
)
select
    md5_number_upper(scope || chr(31) || key) as code,
    scope,
    key,
    cast(sum(n) as BIGINT) as n,
    cast(sum(completed) as BIGINT) as completed,
    cast(sum(decided) as BIGINT) as decided
from keyed
group by scope, key
