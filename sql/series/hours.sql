-- Grain: one row per skill_name and UTC hour with invocations that started in (:start, :end]; :skill
-- narrows them to one skill, NULL is all. A time may stand in another form than ours and then in
-- another place of the index, by up to its offset: the days around are searched as text.
-- hour        YYYY-MM-DDTHH.
-- n           invocations of every outcome; completed and failed among them.
-- duration_n  invocations with a duration; seconds, log_seconds and log_squares are sums over them of
--             it, its natural log and that log's square. Below a millisecond counts as one.
-- sessions    distinct sessions.

select skill_name, hour, count(*) as n,
       sum(outcome = 'completed') as completed,
       sum(outcome = 'failed') as failed,
       count(seconds) as duration_n,
       total(seconds) as seconds,
       total(natural_log(seconds)) as log_seconds,
       total(natural_log(seconds) * natural_log(seconds)) as log_squares,
       count(distinct session_id) as sessions
from (
    select i.skill_name, i.session_id, strftime('%Y-%m-%dT%H', i.invoked_at) as hour,
           case when typeof(i.duration_seconds) in ('real', 'integer')
                     and i.duration_seconds between 0 and 315360000
                then i.duration_seconds end as seconds,
           coalesce(c.outcome, case
               when i.completed = 1 then 'completed'
               when coalesce(i.error_type, '') <> '' then 'failed'
               else 'no_result' end) as outcome
    from skill_invocation i
    left join skill_user_interactions c on c.invocation_id = i.id
    where i.invoked_at >= date(:start, '-1 day') and i.invoked_at < date(:end, '+2 days')
      and julianday(i.invoked_at) > julianday(:start)
      and julianday(i.invoked_at) <= julianday(:end)
      and (:skill is null or i.skill_name = :skill)
) rows
group by skill_name, hour
order by hour, skill_name
