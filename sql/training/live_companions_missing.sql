-- One row: how many runs since :day another tool inserted, without a companion. Two counts by id, from
-- the first id since then; the plus keeps the planner from walking all ids to find it.

select (select count(*) from skill_invocation where id >= first_id)
       - (select count(*) from skill_user_interactions where invocation_id >= first_id)
from (
    select min(+id) as first_id
    from skill_invocation indexed by idx_invocation_invoked_at
    where invoked_at >= :day
)
