-- The skills but for built-in tools that :user has used in runs recorded after id :after. The plus
-- keeps the planner from reading all that the user ever did.

select distinct skill_name
from skill_user_interactions
where invocation_id > :after and +user_id = :user and coalesce(kind, '') <> 'tool'
