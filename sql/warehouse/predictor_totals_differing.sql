-- engine: duckdb (is distinct from)
-- How many rows of predictor_totals differ from recounted_predictor_totals, or stand on one side only.

select count(*) as n
from predictor_totals g
full outer join recounted_predictor_totals r
    on g.code = r.code
    and g.scope = r.scope
    and g.key = r.key
where g.n is distinct from r.n
   or g.completed is distinct from r.completed
   or g.decided is distinct from r.decided
