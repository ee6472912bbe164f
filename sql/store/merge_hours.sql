-- Makes the hours of the UTC day :day ('YYYY-MM-DD') in skill_hour one row per skill, in the day's
-- first hour. Statements run in this order, in one transaction.

create temp table merged_day as
select skill_name, :day || 'T00' as hour, min(kind) as kind,
       sum(completed) as completed, sum(failed) as failed, sum(rejected) as rejected,
       sum(cancelled) as cancelled, sum(interrupted) as interrupted, sum(no_result) as no_result,
       sum(duration_n) as duration_n, total(duration_sum) as duration_sum
from skill_hour
where hour >= :day || 'T' and hour < :day || 'U'
group by skill_name;

delete from skill_hour where hour >= :day || 'T' and hour < :day || 'U';

insert into skill_hour (
    skill_name, hour, kind, completed, failed, rejected, cancelled, interrupted, no_result,
    duration_n, duration_sum
)
select skill_name, hour, kind, completed, failed, rejected, cancelled, interrupted, no_result,
       duration_n, duration_sum
from merged_day;

drop table merged_day;
