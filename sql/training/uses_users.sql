-- One row per known user of training_uses, by id.

select distinct user_id
from training_uses
where user_id <> ''
order by user_id
