-- The pairs with $skill_name that somebody expects, seen from it: skill_b is the other one, n_a belongs
-- to $skill_name. By name.

select
    skill_b, expected_lift, verdict, n_sessions, n_a, n_b, co_occurrence_count, lift_score,
    lift_low, lift_high, q_value
from (
    select
        skill_b, expected_lift, verdict, n_sessions, n_a, n_b, co_occurrence_count, lift_score,
        lift_low, lift_high, q_value
    from expected_found
    where skill_a = $skill_name
    union all
    select
        skill_a, expected_lift, verdict, n_sessions, n_b, n_a, co_occurrence_count, lift_score,
        lift_low, lift_high, q_value
    from expected_found
    where skill_b = $skill_name
) pairs
order by skill_b
