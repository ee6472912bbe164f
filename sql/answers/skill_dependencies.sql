-- The pairs of $skill_name that share at least five sessions, seen from it: skill_b is the other one,
-- n_a and confidence_ab belong to $skill_name. Surest first, then by lift and name.

select
    skill_b, kind, co_occurrence_count, n_sessions, n_a, n_b, support,
    confidence_ab, confidence_ab_low, confidence_ab_high,
    confidence_ba, confidence_ba_low, confidence_ba_high,
    lift_score, lift_low, lift_high, relationship_type, expected, p_value, q_value, significant,
    then_skill, order_n, order_share, order_low, order_high, order_p_value, order_q_value
from (
    select
        skill_b, kind_b as kind, co_occurrence_count, n_sessions, n_a, n_b, support,
        confidence_ab, confidence_ab_low, confidence_ab_high,
        confidence_ba, confidence_ba_low, confidence_ba_high,
        lift_score, lift_low, lift_high, relationship_type, expected, p_value, q_value, significant,
        then_skill, order_n, order_share, order_low, order_high, order_p_value, order_q_value
    from skill_dependencies
    where skill_a = $skill_name
    union all
    select
        skill_a, kind_a, co_occurrence_count, n_sessions, n_b, n_a, support,
        confidence_ba, confidence_ba_low, confidence_ba_high,
        confidence_ab, confidence_ab_low, confidence_ab_high,
        lift_score, lift_low, lift_high, relationship_type, expected, p_value, q_value, significant,
        then_skill, order_n, order_share, order_low, order_high, order_p_value, order_q_value
    from skill_dependencies
    where skill_b = $skill_name
) pairs
order by q_value, lift_score desc, skill_b
