-- since: V1
-- One row per skill that was ever invoked, over all time. completion_rate is percent of all
-- invocations, as V1 has it.

create view v_skill_effectiveness as
select skill_name, total_invocations, completed_invocations, abandoned_invocations,
       completion_rate, avg_duration_seconds, first_invoked, last_invoked,
       julianday('now') - julianday(last_invoked) as days_since_last_use
from skill_metrics
where total_invocations > 0
order by total_invocations desc;
