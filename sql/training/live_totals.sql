-- engine: duckdb (chr, hash)
-- Counts up to their own watermark for one question: one row per scope that has any, and in the row
-- `until` that watermark as n.
-- One look-up each, by code, so that the sorted table's zone maps serve every one of them.

select 'all' as name, n, completed, decided
from predictor_totals
where code = hash('all', '')
  and scope = 'all' and key = ''
union all
select 'skill' as name, n, completed, decided
from predictor_totals
where code = hash('skill', $skill)
  and scope = 'skill' and key = $skill
union all
select 'previous' as name, n, completed, decided
from predictor_totals
where code = hash('skill', $previous)
  and scope = 'skill' and key = $previous
union all
select 'user' as name, n, completed, decided
from predictor_totals
where code = hash('user', $user)
  and scope = 'user' and key = $user
union all
select 'user_skill' as name, n, completed, decided
from predictor_totals
where code = hash('user_skill', $user || chr(31) || $skill)
  and scope = 'user_skill' and key = $user || chr(31) || $skill
union all
select 'version' as name, n, completed, decided
from predictor_totals
where code = hash('version', $skill || chr(31) || $agent || chr(31) || $version)
  and scope = 'version' and key = $skill || chr(31) || $agent || chr(31) || $version
union all
select 'phase' as name, n, completed, decided
from predictor_totals
where code = hash('phase', $phase)
  and scope = 'phase' and key = $phase
union all
select 'agent' as name, n, completed, decided
from predictor_totals
where code = hash('agent', $agent)
  and scope = 'agent' and key = $agent
union all
select 'model' as name, n, completed, decided
from predictor_totals
where code = hash('model', $model)
  and scope = 'model' and key = $model
union all
select 'until' as name, id, 0, 0
from watermarks
where name = 'predictor_totals'
