-- One row per row of training_asked, in its order: how the run ended, when that was known, and the
-- numbers of its session (negative and its own where unknown) and its skill.

select
    known_at,
    completed,
    decided,
    coalesce(session_code, -1 - row) as session,
    skill
from training_asked
order by row
