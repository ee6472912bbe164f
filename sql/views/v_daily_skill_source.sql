-- since: V1
-- One row per UTC day and skill; what mv_daily_skills is meant to hold. A row whose time cannot be
-- read has date NULL. avg_duration_seconds is over all rows that have a duration. The day of
-- canonical text is its first 10 characters (date() rounds 23:59:59.9999996 up).

create view v_daily_skill_source as
select case when invoked_at glob '????-??-??T??:*+00:00' and date(invoked_at) is not null
            then substr(invoked_at, 1, 10)
            else date(invoked_at) end as date,
       skill_name,
       count(*) as invocations,
       sum(completed = 1) as completions,
       sum(completed <> 1) as abandonments,
       avg(duration_seconds) as avg_duration_seconds
from skill_invocation
group by 1, skill_name;
