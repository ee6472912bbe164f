-- Experiments from the attached database backup where there are none now, and the same for the
-- taxonomy: into tables with rows of their own they cannot go, because ids would meet.
-- A skill that was never invoked gets a row of zeros in skill_metrics, to which V4's tables refer.

create temp table wanted as
select (select count(*) from main.ab_test_configs) = 0 as experiments,
       (select count(*) from main.skill_categories) = 0
       and (select count(*) from main.skill_category_mapping) = 0
       and (select count(*) from main.skill_modalities) = 0 as taxonomy;

insert or ignore into main.skill_metrics (skill_name)
select skill_name from backup.ab_test_outcomes, wanted where experiments
union select skill_name from backup.skill_category_mapping, wanted where taxonomy
union select skill_name from backup.skill_modalities, wanted where taxonomy;

insert into main.ab_test_configs
select t.* from backup.ab_test_configs t, wanted where experiments;

insert into main.ab_test_assignments
select t.* from backup.ab_test_assignments t, wanted where experiments;

insert into main.ab_test_outcomes
select t.* from backup.ab_test_outcomes t, wanted where experiments;

insert into main.skill_categories
select t.* from backup.skill_categories t, wanted where taxonomy;

insert into main.skill_category_mapping
select t.* from backup.skill_category_mapping t, wanted where taxonomy;

insert into main.skill_modalities
select t.* from backup.skill_modalities t, wanted where taxonomy;

drop table temp.wanted;
