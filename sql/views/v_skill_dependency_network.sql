-- since: V4
-- One row per measured pair; the type follows V4's thresholds on lift.

create view v_skill_dependency_network as
select skill_a, skill_b, co_occurrence_count, lift_score,
       case
           when lift_score is null then 'unknown'
           when lift_score >= 2.0 then 'strong_positive'
           when lift_score >= 1.5 then 'moderate_positive'
           when lift_score > 1.0 then 'weak_positive'
           when lift_score = 1.0 then 'independent'
           when lift_score > 0.5 then 'weak_negative'
           else 'moderate_negative'
       end as relationship_type
from skill_dependencies
order by lift_score desc;
