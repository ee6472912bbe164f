-- V4's skill_dependencies: one row per pair of skills, skill_a before skill_b by name, that share at
-- least five sessions. The unit of co_occurrence_count is the session.

select
    skill_a,
    skill_b,
    co_occurrence_count,
    lift_score,
    strftime(last_updated, '%Y-%m-%dT%H:%M:%S.%f+00:00') as last_updated
from skill_dependencies
order by skill_a, skill_b
