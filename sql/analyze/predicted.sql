-- The event ids of training_events, in the order of their rows.

select event_id
from training_events
order by row
