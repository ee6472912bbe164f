-- since: V3
-- One row per skill and phase, most used first; success_rate is percent, as V3 has it.

create view v_skills_by_phase_usage as
select skill_name,
       workflow_phase,
       count(*) as usage_count,
       100.0 * sum(completed = 1) / count(*) as success_rate
from skill_invocation
where workflow_phase is not null
group by skill_name, workflow_phase
order by usage_count desc;
