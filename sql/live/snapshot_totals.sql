-- engine: duckdb (a snapshot)
-- skill_totals of a snapshot, for memory; grain and meaning as in warehouse/skill_totals.sql.

select
    skill_name, kind, workflow_phase, outcome, n, duration_n, coalesce(duration_sum, 0) as duration_sum,
    le_0_1, le_0_5, le_1, le_2, le_5, le_10, le_30, le_60, le_300
from skill_totals
