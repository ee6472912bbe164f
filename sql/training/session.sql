-- One row per row of training_asked, in its order: the moment of the prediction and what was known
-- of the session; session_begun_at is asked_at in a new session.

select
    asked_at,
    session_n,
    session_completed,
    session_decided,
    session_failures,
    session_last_failed,
    coalesce(session_begun_at, asked_at) as session_begun_at
from training_asked
order by row
