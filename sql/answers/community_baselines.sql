-- The baselines of $kind (NULL: all but tool; 'all': all), best first, then by name.

select
    skill_name,
    kind,
    total_users,
    min_users,
    total_invocations,
    completion_rate_n,
    raw_completion_rate,
    global_completion_rate,
    completion_rate_low,
    completion_rate_high,
    duration_n,
    duration_days,
    global_avg_duration_seconds,
    duration_low,
    duration_high,
    most_common_workflow_phase,
    phased,
    phase_n,
    phase_low,
    phase_high,
    effectiveness_percentile
from skill_community_baselines
where $kind = 'all' or ($kind is null and kind <> 'tool') or kind = $kind
order by global_completion_rate desc, skill_name
