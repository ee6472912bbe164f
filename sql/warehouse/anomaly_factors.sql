-- Grain: one row per attribute and value that the runs of $skill in [$start, $until) have; the
-- attribute 'total' (one row) is all of them, 'error_type' the bad ones by error.
-- $bad         what is counted: 'failed' or 'completed' among decided runs, 'slow' (above $seconds) or
--              'quick' (below) among runs with a duration, 'any' every run.
-- n_before     runs that start before $since; bad_before the bad ones among them.
-- n_after      runs from $since on.
-- first_seen   start of the first run with the value.

with runs as (
    select
        invoked_at,
        invoked_at >= $since as later,
        case
            when $bad = 'any' then false
            when $bad = 'slow' then duration_seconds > $seconds
            when $bad = 'quick' then duration_seconds < $seconds
            else outcome = $bad
        end as bad,
        agent,
        agent_version,
        model,
        project_id,
        workflow_phase,
        error_type
    from anomaly_runs
    where skill_name = $skill
      and invoked_at >= $start
      and invoked_at < $until
      and (
          $bad = 'any'
          or ($bad in ('slow', 'quick') and duration_seconds is not null)
          or ($bad in ('failed', 'completed') and outcome in ('completed', 'failed'))
      )
),

valued as (
    select 'total' as attribute, '' as val, later, bad, invoked_at from runs
    union all
    select 'agent', agent, later, bad, invoked_at from runs
    union all
    select 'agent_version', agent_version, later, bad, invoked_at from runs
    union all
    select 'model', model, later, bad, invoked_at from runs
    union all
    select 'project_id', project_id, later, bad, invoked_at from runs
    union all
    select 'workflow_phase', workflow_phase, later, bad, invoked_at from runs
    union all
    select 'error_type', error_type, later, bad, invoked_at from runs where bad
)

select
    attribute,
    val,
    count(case when not later then 1 end) as n_before,
    count(case when not later and bad then 1 end) as bad_before,
    count(case when later then 1 end) as n_after,
    count(case when later and bad then 1 end) as bad_after,
    min(invoked_at) as first_seen
from valued
where val is not null and (val <> '' or attribute = 'total')
group by attribute, val
order by attribute, val
