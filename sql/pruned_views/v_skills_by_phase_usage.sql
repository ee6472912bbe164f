-- since: V3
-- views/v_skills_by_phase_usage.sql in a file of which days were pruned: their totals count too.

create view v_skills_by_phase_usage as
select skill_name,
       workflow_phase,
       sum(n) as usage_count,
       100.0 * sum(completed) / sum(n) as success_rate
from (
    select skill_name, workflow_phase, count(*) as n, sum(completed = 1) as completed
    from skill_invocation
    where workflow_phase is not null
    group by skill_name, workflow_phase
    union all
    select skill_name, workflow_phase, n, iif(outcome = 'completed', n, 0)
    from sb_pruned_totals
    where workflow_phase <> ''
) parts
group by skill_name, workflow_phase
order by usage_count desc;
