-- The trend of $skill_name over $days days by $metric: one row, or none where the skill had no
-- invocation in the longest window. skills: how many q_value compares. Times as canonical text.

select
    kind,
    trend,
    n,
    slope_per_day,
    slope_low,
    slope_high,
    start_value,
    start_low,
    start_high,
    end_value,
    end_low,
    end_high,
    change_percent,
    p_value,
    q_value,
    reason,
    strftime(window_end, '%Y-%m-%dT%H:%M:%S.%f+00:00') as window_end,
    (
        select count(p_value) from skill_trends where days = $days and metric = $metric
    ) as skills
from skill_trends
where skill_name = $skill_name and days = $days and metric = $metric
