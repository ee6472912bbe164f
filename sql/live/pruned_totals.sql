-- The totals of pruned rows, columns and grain as in snapshot_totals.sql; for when no snapshot holds
-- them.

select skill_name, kind, coalesce(nullif(workflow_phase, ''), 'unknown') as phase, outcome,
       sum(n), sum(duration_n), sum(duration_sum),
       sum(le_0_1), sum(le_0_5), sum(le_1), sum(le_2), sum(le_5), sum(le_10), sum(le_30), sum(le_60),
       sum(le_300)
from sb_pruned_totals
group by skill_name, kind, phase, outcome
