-- Whole hours :first to :last ('YYYY-MM-DDTHH', both included), summed: one row per skill.

select skill_name, max(kind),
       sum(completed), sum(failed), sum(rejected), sum(cancelled), sum(interrupted), sum(no_result),
       sum(duration_n), sum(duration_sum)
from skill_hour
where hour >= :first and hour <= :last
group by skill_name
