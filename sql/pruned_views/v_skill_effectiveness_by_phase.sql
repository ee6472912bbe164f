-- since: V3
-- views/v_skill_effectiveness_by_phase.sql in a file of which days were pruned: their totals count too.

create view v_skill_effectiveness_by_phase as
select skill_name,
       workflow_phase,
       sum(n) as total_invocations,
       sum(completed) as completed_count,
       sum(n) - sum(completed) as abandoned_count,
       total(seconds) / nullif(sum(timed), 0) as avg_duration_seconds,
       total(completed_seconds) / nullif(sum(completed_timed), 0) as avg_completion_time,
       100.0 * sum(completed) / sum(n) as completion_rate
from (
    select skill_name, workflow_phase, count(*) as n, sum(completed = 1) as completed,
           count(duration_seconds) as timed, total(duration_seconds) as seconds,
           count(case when completed = 1 then duration_seconds end) as completed_timed,
           total(case when completed = 1 then duration_seconds end) as completed_seconds
    from skill_invocation
    where workflow_phase is not null
    group by skill_name, workflow_phase
    union all
    select skill_name, workflow_phase, n, iif(outcome = 'completed', n, 0), duration_n, duration_sum,
           iif(outcome = 'completed', duration_n, 0), iif(outcome = 'completed', duration_sum, 0.0)
    from sb_pruned_totals
    where workflow_phase <> ''
) parts
group by skill_name, workflow_phase;
