-- engine: duckdb (is distinct from)
-- How many rows of skill_totals differ from recounted_skill_totals, or stand on one side only. Sums
-- of floating point numbers may differ in their last digits.

select count(*) as n
from skill_totals g
full outer join recounted_skill_totals r
    on g.skill_name = r.skill_name
    and g.kind = r.kind
    and g.workflow_phase = r.workflow_phase
    and g.outcome = r.outcome
where g.n is distinct from r.n
   or g.duration_n is distinct from r.duration_n
   or abs(g.duration_sum - r.duration_sum) > 0.000000001 * (1 + r.duration_sum)
   or g.le_0_1 is distinct from r.le_0_1
   or g.le_0_5 is distinct from r.le_0_5
   or g.le_1 is distinct from r.le_1
   or g.le_2 is distinct from r.le_2
   or g.le_5 is distinct from r.le_5
   or g.le_10 is distinct from r.le_10
   or g.le_30 is distinct from r.le_30
   or g.le_60 is distinct from r.le_60
   or g.le_300 is distinct from r.le_300
   or g.last_invoked_at is distinct from r.last_invoked_at
