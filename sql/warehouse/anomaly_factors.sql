-- Grain: one row per event of anomaly_asked, attribute and value that the runs of its skill in
-- [start, until) have; the attribute 'total' (one row) is all of them, 'error_type' the bad ones by
-- error. anomaly_asked is a temporary table with the columns event, skill_name, start, since, until,
-- bad and seconds; $earliest, no later than any start, spares reading what lies before.
-- bad          what is counted: 'failed' or 'completed' among decided runs, 'slow' (above seconds) or
--              'quick' (below) among runs with a duration, 'any' every run.
-- n_before     runs that start before since; bad_before the bad ones among them.
-- n_after      runs from since on.
-- first_seen   start of the first run with the value.

with runs as (
    -- All values of a run together: few combinations, so that the runs are counted once.
    select
        asked.event,
        events.invoked_at >= asked.since as later,
        case
            when asked.bad = 'any' then false
            when asked.bad = 'slow' then events.duration_seconds > asked.seconds
            when asked.bad = 'quick' then events.duration_seconds < asked.seconds
            else events.outcome = asked.bad
        end as bad,
        events.agent,
        events.agent_version,
        events.model,
        events.project_id,
        events.workflow_phase,
        events.error_type,
        count(*) as n,
        min(events.invoked_at) as first_seen
    from events
    inner join anomaly_asked as asked on events.skill_name = asked.skill_name
    where events.invoked_at >= $earliest
      and events.invoked_at >= asked.start
      and events.invoked_at < asked.until
      and (
          asked.bad = 'any'
          or (asked.bad in ('slow', 'quick') and events.duration_seconds is not null)
          or (
              asked.bad in ('failed', 'completed')
              and events.outcome in ('completed', 'failed')
          )
      )
    group by 1, 2, 3, 4, 5, 6, 7, 8, 9
),

valued as (
    select event, 'total' as attribute, '' as val, later, bad, n, first_seen from runs
    union all
    select event, 'agent', agent, later, bad, n, first_seen from runs
    union all
    select event, 'agent_version', agent_version, later, bad, n, first_seen from runs
    union all
    select event, 'model', model, later, bad, n, first_seen from runs
    union all
    select event, 'project_id', project_id, later, bad, n, first_seen from runs
    union all
    select event, 'workflow_phase', workflow_phase, later, bad, n, first_seen from runs
    union all
    select event, 'error_type', error_type, later, bad, n, first_seen from runs where bad
)

select
    event,
    attribute,
    val,
    cast(coalesce(sum(case when not later then n end), 0) as BIGINT) as n_before,
    cast(coalesce(sum(case when not later and bad then n end), 0) as BIGINT) as bad_before,
    cast(coalesce(sum(case when later then n end), 0) as BIGINT) as n_after,
    cast(coalesce(sum(case when later and bad then n end), 0) as BIGINT) as bad_after,
    min(first_seen) as first_seen
from valued
where val is not null and (val <> '' or attribute = 'total')
group by event, attribute, val
order by event, attribute, val
