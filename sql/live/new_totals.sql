-- The rows with an id above :after, counted; added to a snapshot's skill_totals they are the totals
-- of now. Grain: one row per skill_name, kind, workflow_phase and outcome, and one per unusual text
-- of a time.
-- workflow_phase   'unknown' where none is recorded
-- duration_*, le_* over durations from 0 to ten years, as in warehouse/events.sql
-- unusual          invoked_at where this query cannot tell whether it is a time; else NULL. Such rows
--                  count only if live/readable.sql, which decides for the warehouse too, says yes
-- late             1 if a row of this group lies before hour :hour
--                  ('+0 days' makes SQLite notice a February 30)
--
-- `not indexed` is needed: left alone SQLite walks an index on skill_name through the whole table.

select skill_name, kind, workflow_phase, outcome, unusual, max(late) as late,
       count(*) as n, count(d) as duration_n, total(d) as duration_sum,
       total(d <= 0.1), total(d <= 0.5), total(d <= 1), total(d <= 2), total(d <= 5),
       total(d <= 10), total(d <= 30), total(d <= 60), total(d <= 300)
from (
    select i.skill_name,
           coalesce(c.kind, 'skill') as kind,
           coalesce(i.workflow_phase, 'unknown') as workflow_phase,
           coalesce(c.outcome, case
               when i.completed = 1 then 'completed'
               when coalesce(i.error_type, '') <> '' then 'failed'
               else 'no_result' end) as outcome,
           case when i.duration_seconds between 0 and 315360000 then i.duration_seconds end as d,
           case when i.invoked_at glob
                    '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9].[0-9][0-9][0-9][0-9][0-9][0-9]+00:00'
                and substr(i.invoked_at, 1, 4) between '0001' and '9998'
                and substr(i.invoked_at, 12, 2) < '24'
                and date(substr(i.invoked_at, 1, 10), '+0 days') = substr(i.invoked_at, 1, 10)
                then null else i.invoked_at end as unusual,
           i.invoked_at < :hour as late
    from skill_invocation i not indexed
    left join skill_user_interactions c on c.invocation_id = i.id
    where i.id > :after
)
group by skill_name, kind, workflow_phase, outcome, unusual
