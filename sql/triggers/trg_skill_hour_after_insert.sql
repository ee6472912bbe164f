-- since: V4
-- Keeps skill_hour. The companion row, where there is one, is written first in the same
-- transaction and tells kind and outcome; a row that another tool inserts has none.
-- The same rows and durations count as in the warehouse (sql/warehouse/events.sql): a date of the
-- calendar, alone or with a time of day and perhaps an offset, of the years 1 to 9999; a duration of
-- 0 to 10 years. The hour is taken from the text where it is UTC, and the fraction left out where it
-- is not: strftime rounds 59.9999996 s up. sql/store/count_hours_anew.sql has the same rules.

create trigger trg_skill_hour_after_insert after insert on skill_invocation
when strftime('%H', new.invoked_at) is not null
    and new.invoked_at glob '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*'
    and date(substr(new.invoked_at, 1, 10), '+0 days') = substr(new.invoked_at, 1, 10)
    and (length(new.invoked_at) = 10 or new.invoked_at glob '??????????[ T][0-2][0-9]:*[0-9Z]')
    and substr(new.invoked_at, 12, 2) <> '24'
    and new.invoked_at not glob '* [+-]*'
begin
    insert into skill_hour (
        skill_name, hour, kind, completed, failed, rejected, cancelled, interrupted, no_result,
        duration_n, duration_sum
    )
    select new.skill_name, hour, kind,
           outcome = 'completed', outcome = 'failed', outcome = 'rejected', outcome = 'cancelled',
           outcome = 'interrupted', outcome = 'no_result',
           seconds is not null, coalesce(seconds, 0.0)
    from (
        select coalesce(c.kind, 'skill') as kind,
               coalesce(c.outcome, case
                   when new.completed = 1 then 'completed'
                   when coalesce(new.error_type, '') <> '' then 'failed'
                   else 'no_result' end) as outcome,
               case when new.duration_seconds between 0 and 315360000 then new.duration_seconds end
                   as seconds,
               case
                   when new.invoked_at not glob '*[+-][0-9][0-9]:[0-9][0-9]'
                       or new.invoked_at glob '*+00:00'
                       then substr(new.invoked_at, 1, 10) || 'T'
                           || iif(length(new.invoked_at) = 10, '00', substr(new.invoked_at, 12, 2))
                   when instr(new.invoked_at, '.') then strftime('%Y-%m-%dT%H',
                       substr(new.invoked_at, 1, instr(new.invoked_at, '.') - 1)
                           || substr(new.invoked_at, -6))
                   else strftime('%Y-%m-%dT%H', new.invoked_at) end as hour
        from (select 1) left join skill_user_interactions c on c.invocation_id = new.id
    )
    where hour >= '0001' and hour < '9999-12-31'
    on conflict (hour, skill_name) do update set
        completed = completed + excluded.completed,
        failed = failed + excluded.failed,
        rejected = rejected + excluded.rejected,
        cancelled = cancelled + excluded.cancelled,
        interrupted = interrupted + excluded.interrupted,
        no_result = no_result + excluded.no_result,
        duration_n = duration_n + excluded.duration_n,
        duration_sum = duration_sum + excluded.duration_sum;
end;
