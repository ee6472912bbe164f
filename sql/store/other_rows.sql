-- The rows of another program's skills.db, in a copy that other_columns filled up: one row per
-- invocation, with the user and the rating of the interaction that has its session, skill and
-- start; then the interactions that no invocation belongs to. Of several such interactions the
-- least user and the greatest rating are taken.

with interaction as (
    select session_id, skill_name, invoked_at, max(completed) as completed,
           min(user_id) as user_id, max(rating) as rating
    from skill_user_interactions
    group by session_id, skill_name, invoked_at
)
select i.skill_name, i.invoked_at, i.session_id, i.completed, i.duration_seconds, i.error_type,
       i.workflow_path, i.workflow_phase, i.workflow_step_id, u.user_id, u.rating
from skill_invocation i
left join interaction u
    on u.session_id = i.session_id and u.skill_name = i.skill_name and u.invoked_at = i.invoked_at
union all
select u.skill_name, u.invoked_at, u.session_id, u.completed, null, null, null, null, null,
       u.user_id, u.rating
from interaction u
left join skill_invocation i
    on i.session_id = u.session_id and i.skill_name = u.skill_name and i.invoked_at = u.invoked_at
where i.skill_name is null
