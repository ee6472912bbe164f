-- since: V3
-- One row per skill and phase; completion_rate is percent of all invocations, as V3 has it.
-- avg_duration_seconds is over all rows with a duration, avg_completion_time over completed ones.

create view v_skill_effectiveness_by_phase as
select skill_name,
       workflow_phase,
       count(*) as total_invocations,
       sum(completed = 1) as completed_count,
       sum(completed <> 1) as abandoned_count,
       avg(duration_seconds) as avg_duration_seconds,
       avg(case when completed = 1 then duration_seconds end) as avg_completion_time,
       100.0 * sum(completed = 1) / count(*) as completion_rate
from skill_invocation
where workflow_phase is not null
group by skill_name, workflow_phase;
