-- predictor_totals as a live prediction holds it in memory: by code, so that a look-up is a bisection.
-- The casts refuse what is no count.

select
    code,
    cast(n as UINTEGER) as n,
    cast(completed as UINTEGER) as completed,
    cast(decided as UINTEGER) as decided
from predictor_totals
order by code
