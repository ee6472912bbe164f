-- Grain of skill_session_size: one row per skill and number of skills that a session holds.
-- n  sessions that hold the skill and so many in all, itself among them.
-- What held (the rows that sessions with news had) and new_session_skill (those that are new) make of
-- it: these sessions leave their old size and enter the new one.

select skill, size, cast(sum(n) as BIGINT) as n
from (
    select skill, size, n from skill_session_size
    union all
    select r.skill, z.after as size, count(*) as n
    from (select session, skill from held union all select session, skill from new_session_skill) r
    join session_growth z on z.session = r.session
    group by r.skill, z.after
    union all
    select r.skill, z.before as size, -count(*) as n
    from held r
    join session_growth z on z.session = r.session
    group by r.skill, z.before
) parts
group by skill, size
having sum(n) > 0
