-- Grain: one row per skill_name. kind is the one that its invocations have; where a foreign row gave
-- a name a second kind, the more frequent one, then the first by name.

select skill_name, kind
from (
    select
        skill_name,
        kind,
        row_number() over (partition by skill_name order by sum(n) desc, kind) as place
    from skill_totals
    group by skill_name, kind
) kinds
where place = 1
