-- since: V1
-- One row per skill that was ever invoked, most used first; preferred_workflow is its most frequent
-- workflow path.

create view v_top_skills as
select skill_name, total_invocations, completion_rate, avg_duration_seconds,
       (select key from json_each(iif(json_valid(workflow_paths), workflow_paths, '{}'))
        order by value desc, key limit 1) as preferred_workflow
from skill_metrics
where total_invocations > 0
order by total_invocations desc;
