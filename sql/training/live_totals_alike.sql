-- The rows of predictor_totals whose code another row has too; there is hardly ever one.

select scope, key, n, completed, decided
from predictor_totals
where code in (select code from predictor_totals group by code having count(*) > 1)
