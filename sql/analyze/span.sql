-- One row: first and last start of all events, NULL without events.

select min(invoked_at) as first, max(invoked_at) as last
from events
