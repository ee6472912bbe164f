-- One row: the runs that ended in [:start, :at), first all of them, then those of :phase ('' = none).

select count(*), total(outcome = 'completed'), total(outcome in ('completed', 'failed')),
       total(phase = :phase), total(phase = :phase and outcome = 'completed'),
       total(phase = :phase and outcome in ('completed', 'failed'))
from (
    select c.outcome, coalesce(i.workflow_phase, '') as phase
    from skill_user_interactions c
    join skill_invocation i on i.id = c.invocation_id
    where c.ended_at >= :start and c.ended_at < :at
)
