-- since: V4
-- One row per test. Users are those assigned to an arm; a rate is completed outcomes over all
-- outcomes of that arm's users, a fraction, NULL without an outcome. It judges nothing.

create view v_ab_test_summary as
with users as (
    select test_id,
           count(*) as total_users,
           sum(group_name = 'control') as control_users,
           sum(group_name = 'treatment') as treatment_users
    from ab_test_assignments group by test_id
),
rates as (
    select a.test_id,
           avg(case when a.group_name = 'control' then o.completed = 1 end) as control_rate,
           avg(case when a.group_name = 'treatment' then o.completed = 1 end) as treatment_rate
    from ab_test_outcomes o
    join ab_test_assignments a on a.test_id = o.test_id and a.user_id = o.user_id
    group by a.test_id
)
select t.test_id, t.test_name, t.control_strategy, t.treatment_strategy, t.status,
       coalesce(u.total_users, 0) as total_users,
       coalesce(u.control_users, 0) as control_users,
       coalesce(u.treatment_users, 0) as treatment_users,
       r.control_rate as control_completion_rate,
       r.treatment_rate as treatment_completion_rate
from ab_test_configs t
left join users u using (test_id)
left join rates r using (test_id);
