-- V4's skill_community_baselines: one row per skill that enough users share. Rates are fractions, the
-- rate is the shrunk one, the percentile is its rank among the skills shown, 0 to 100.

select
    skill_name,
    total_users,
    total_invocations,
    global_completion_rate,
    global_avg_duration_seconds,
    most_common_workflow_phase,
    effectiveness_percentile,
    strftime(last_updated, '%Y-%m-%dT%H:%M:%S.%f+00:00') as last_updated
from skill_community_baselines
order by skill_name
