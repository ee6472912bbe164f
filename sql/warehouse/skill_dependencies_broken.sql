-- Rows of skill_dependencies that cannot be: counts that contradict each other, a share, p or q
-- outside [0, 1], a value outside its interval, a pair not in the order of its names or twice; and
-- the table when it is empty although pairs share enough sessions.

select skill_a, skill_b, 'impossible' as what
from skill_dependencies
where skill_a >= skill_b
   or co_occurrence_count < $min_count
   or co_occurrence_count > n_a
   or co_occurrence_count > n_b
   or n_a > n_sessions
   or n_b > n_sessions
   or abs(lift_score * n_a * n_b - 1.0 * n_sessions * co_occurrence_count)
       > 0.000001 * n_sessions * co_occurrence_count
   or lift_score < lift_low
   or lift_score > lift_high
   or confidence_ab < confidence_ab_low
   or confidence_ab > confidence_ab_high
   or confidence_ba < confidence_ba_low
   or confidence_ba > confidence_ba_high
   or p_value < 0
   or q_value > 1
   or q_value < p_value
   or order_n > co_occurrence_count
   or order_share < 0.5
   or order_share > order_high
   or order_share < order_low
   or order_q_value < order_p_value
   or then_skill not in (skill_a, skill_b)
union all
select skill_a, skill_b, 'twice' as what
from skill_dependencies
group by skill_a, skill_b
having count(*) > 1
union all
select 'every skill' as skill_a, null as skill_b, 'missing' as what
from (select count(*) as n from pair_count where n >= $min_count) pairs
where n > 0 and (select count(*) from skill_dependencies) = 0
order by 1, 2
