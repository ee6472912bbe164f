-- Grain: one row per skill_name, kind, workflow_phase and outcome, over all time.
-- workflow_phase   'unknown' where the source gave none.
-- n                invocations.
-- duration_n, _sum rows whose duration is known, and their seconds.
-- le_X             rows with a duration of at most X seconds ('_' is the decimal point); cumulative.
-- last_invoked_at  latest start.
-- The rows so far plus the events past the totals' watermark ($after); counts add, so nothing older
-- is read again. The first time ($after = 0) those of pruned rows are added.

select
    skill_name,
    kind,
    workflow_phase,
    outcome,
    cast(sum(n) as BIGINT) as n,
    cast(sum(duration_n) as BIGINT) as duration_n,
    sum(duration_sum) as duration_sum,
    cast(sum(le_0_1) as BIGINT) as le_0_1,
    cast(sum(le_0_5) as BIGINT) as le_0_5,
    cast(sum(le_1) as BIGINT) as le_1,
    cast(sum(le_2) as BIGINT) as le_2,
    cast(sum(le_5) as BIGINT) as le_5,
    cast(sum(le_10) as BIGINT) as le_10,
    cast(sum(le_30) as BIGINT) as le_30,
    cast(sum(le_60) as BIGINT) as le_60,
    cast(sum(le_300) as BIGINT) as le_300,
    max(last_invoked_at) as last_invoked_at
from (
    select
        skill_name, kind, workflow_phase, outcome, n, duration_n, duration_sum,
        le_0_1, le_0_5, le_1, le_2, le_5, le_10, le_30, le_60, le_300, last_invoked_at
    from skill_totals
    union all
    select
        skill_name,
        kind,
        coalesce(workflow_phase, 'unknown'),
        outcome,
        count(*),
        count(duration_seconds),
        coalesce(sum(duration_seconds), 0),
        count(case when duration_seconds <= 0.1 then 1 end),
        count(case when duration_seconds <= 0.5 then 1 end),
        count(case when duration_seconds <= 1 then 1 end),
        count(case when duration_seconds <= 2 then 1 end),
        count(case when duration_seconds <= 5 then 1 end),
        count(case when duration_seconds <= 10 then 1 end),
        count(case when duration_seconds <= 30 then 1 end),
        count(case when duration_seconds <= 60 then 1 end),
        count(case when duration_seconds <= 300 then 1 end),
        max(invoked_at)
    from events
    where id > $after
    group by skill_name, kind, coalesce(workflow_phase, 'unknown'), outcome
    union all
    select
        skill_name, kind, coalesce(workflow_phase, 'unknown'), outcome, n, duration_n, duration_sum,
        le_0_1, le_0_5, le_1, le_2, le_5, le_10, le_30, le_60, le_300, last_at
    from pruned_totals
    where $after = 0
) folded
group by skill_name, kind, workflow_phase, outcome
