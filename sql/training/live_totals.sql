-- Counts up to their own watermark for one question: one row per scope and key that has any.
-- All look-ups in one scan, by code, so that the sorted table's zone maps serve them. The codes come
-- as numbers: computed here, they would cost more than the scan.

select scope, key, n, completed, decided
from predictor_totals
where code in (
    $all, $skill, $previous, $user, $user_skill, $version, $phase, $agent, $model
)
