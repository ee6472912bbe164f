-- One row: the duration that the share $share of a skill's runs in [$start, $since) stays below;
-- NULL without durations.

select percentile_cont(cast($share as DOUBLE)) within group (order by duration_seconds) as seconds
from anomaly_runs
where skill_name = $skill
  and invoked_at >= $start
  and invoked_at < $since
