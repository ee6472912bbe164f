-- since: V3
-- views/v_workflow_phase_patterns.sql in a file of which days were pruned: their totals count too.

create view v_workflow_phase_patterns as
select workflow_phase,
       sum(n) as invocations_in_phase,
       count(distinct skill_name) as unique_skills_in_phase,
       sum(completed) as successful_completions,
       total(seconds) / nullif(sum(timed), 0) as avg_phase_duration
from (
    select workflow_phase, skill_name, count(*) as n, sum(completed = 1) as completed,
           count(duration_seconds) as timed, total(duration_seconds) as seconds
    from skill_invocation
    where workflow_phase is not null
    group by workflow_phase, skill_name
    union all
    select workflow_phase, skill_name, n, iif(outcome = 'completed', n, 0), duration_n, duration_sum
    from sb_pruned_totals
    where workflow_phase <> ''
) parts
group by workflow_phase;
