-- Experiments and taxonomy of the attached database other, a copy that was filled up to V4's
-- columns, into ours. Names decide what is the same; what is here stays, so that a second run adds
-- nothing. rekey() hashes a user. A skill that was never invoked gets a row of zeros in
-- skill_metrics, to which V4's tables refer.

-- A test is the same if its plan is; one that only shares the name of ours is left out.
create temp table same_test as
select o.test_id as other_id, o.test_name
from other.ab_test_configs o
left join main.ab_test_configs t on t.test_name = o.test_name
where t.test_id is null
   or (t.control_strategy, t.treatment_strategy, t.start_date)
      = (o.control_strategy, o.treatment_strategy, o.start_date);

create temp table new_category as
select o.category_name
from other.skill_categories o
where o.category_name is not null
  and o.category_name not in (select category_name from main.skill_categories);

insert or ignore into main.skill_metrics (skill_name)
select skill_name from other.ab_test_outcomes where skill_name is not null
union select skill_name from other.skill_category_mapping where skill_name is not null
union select skill_name from other.skill_modalities where skill_name is not null;

insert or ignore into main.ab_test_configs (
    test_name, description, control_strategy, treatment_strategy, start_date, end_date,
    min_sample_size, metrics, assignment_ratio, status, created_at
)
select o.test_name, o.description, o.control_strategy, o.treatment_strategy, o.start_date,
       o.end_date, coalesce(o.min_sample_size, 100), o.metrics, coalesce(o.assignment_ratio, 0.5),
       coalesce(o.status, 'running'), coalesce(o.created_at, o.start_date)
from other.ab_test_configs o
join same_test s on s.other_id = o.test_id
order by o.test_id;

insert or ignore into main.ab_test_assignments (test_id, user_id, group_name, assigned_at)
select t.test_id, rekey(a.user_id), a.group_name, coalesce(a.assigned_at, t.start_date)
from other.ab_test_assignments a
join same_test s on s.other_id = a.test_id
join main.ab_test_configs t on t.test_name = s.test_name
where a.user_id is not null and a.group_name is not null
order by a.rowid;

-- An outcome has no name. Of equal ones as many are added as are missing.
insert into main.ab_test_outcomes (
    test_id, user_id, skill_name, completed, duration_seconds, user_rating, recorded_at
)
select test_id, user_id, skill_name, completed, duration_seconds, user_rating, recorded_at
from (
    select *, row_number() over (
               partition by test_id, user_id, skill_name, completed, duration_seconds, user_rating,
                            recorded_at) as copy
    from (
        select t.test_id, rekey(o.user_id) as user_id, o.skill_name, o.completed = 1 as completed,
               iif(typeof(o.duration_seconds) in ('integer', 'real')
                   and o.duration_seconds between 0 and 315360000, o.duration_seconds, null)
                   as duration_seconds,
               iif(typeof(o.user_rating) in ('integer', 'real')
                   and o.user_rating between 0 and 5, o.user_rating, null) as user_rating,
               coalesce(o.recorded_at, t.start_date) as recorded_at
        from other.ab_test_outcomes o
        join same_test s on s.other_id = o.test_id
        join main.ab_test_configs t on t.test_name = s.test_name
        where o.user_id is not null and o.skill_name is not null and o.completed is not null
    )
) n
where n.copy > (
    select count(*) from main.ab_test_outcomes m
    where m.test_id = n.test_id and m.user_id = n.user_id and m.skill_name = n.skill_name
      and m.completed = n.completed and m.duration_seconds is n.duration_seconds
      and m.user_rating is n.user_rating and m.recorded_at = n.recorded_at
);

insert or ignore into main.skill_categories (category_name, description, domain, created_at)
select category_name, description, domain, coalesce(created_at, datetime('now'))
from other.skill_categories
where category_name is not null;

update main.skill_categories set parent_category_id = (
    select p.category_id
    from other.skill_categories o
    join other.skill_categories q on q.category_id = o.parent_category_id
    join main.skill_categories p on p.category_name = q.category_name
    where o.category_name = skill_categories.category_name
)
where category_name in (select category_name from new_category);

insert or ignore into main.skill_category_mapping (
    skill_name, category_id, confidence_score, assigned_at
)
select g.skill_name, c.category_id, g.confidence_score, coalesce(g.assigned_at, datetime('now'))
from other.skill_category_mapping g
join other.skill_categories o on o.category_id = g.category_id
join main.skill_categories c on c.category_name = o.category_name
where g.skill_name is not null;

insert or ignore into main.skill_modalities (
    skill_name, modality_type, input_format, output_format, requires_human_review, created_at
)
select skill_name, modality_type, input_format, output_format, coalesce(requires_human_review, 0),
       coalesce(created_at, datetime('now'))
from other.skill_modalities
where skill_name is not null and modality_type is not null;
