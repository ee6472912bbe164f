-- engine: duckdb (chr, hash)
-- Counts up to their own watermark for one question: one row per scope and key that has any; `skill`
-- may come twice, for the skill itself and for the one that ran before.
-- All look-ups in one scan, by code, so that the sorted table's zone maps serve them.

select scope, key, n, completed, decided
from predictor_totals
where code in (
    hash('all', ''),
    hash('skill', $skill),
    hash('skill', $previous),
    hash('user', $user),
    hash('user_skill', $user || chr(31) || $skill),
    hash('version', $skill || chr(31) || $agent || chr(31) || $version),
    hash('phase', $phase),
    hash('agent', $agent),
    hash('model', $model)
)
