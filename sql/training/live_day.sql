-- One row: the runs of :skill that ended in [:start, :at). The plus keeps the planner on the index
-- on ended_at; by skill it would read the skill's whole history.

select count(*), total(outcome = 'completed'), total(outcome in ('completed', 'failed'))
from skill_user_interactions
where ended_at >= :start and ended_at < :at and +skill_name = :skill
