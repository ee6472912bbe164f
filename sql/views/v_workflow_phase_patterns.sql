-- since: V3
-- One row per phase.

create view v_workflow_phase_patterns as
select workflow_phase,
       count(*) as invocations_in_phase,
       count(distinct skill_name) as unique_skills_in_phase,
       sum(completed = 1) as successful_completions,
       avg(duration_seconds) as avg_phase_duration
from skill_invocation
where workflow_phase is not null
group by workflow_phase;
