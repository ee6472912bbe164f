-- Grain of pair_count: one row per pair of skills, a < b, that at least one session holds both of.
-- n  such sessions.
-- What new_session_skill adds to it: each new skill of a session with those that it held, and with
-- its other new ones.

select a, b, count(*) as n
from (
    select
        case when o.skill < n.skill then o.skill else n.skill end as a,
        case when o.skill < n.skill then n.skill else o.skill end as b
    from new_session_skill n
    join held o on o.session = n.session
    union all
    select x.skill as a, y.skill as b
    from new_session_skill x
    join new_session_skill y on x.session = y.session and x.skill < y.skill
) pairs
group by a, b
