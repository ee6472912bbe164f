-- since: V4
-- Keeps skill_hour. The companion row, where there is one, is written first in the same
-- transaction and tells kind and outcome; a row that another tool inserts has none.
-- The hour of canonical text is its first 13 characters (strftime rounds 59.9999996 s up).

create trigger trg_skill_hour_after_insert after insert on skill_invocation
when strftime('%H', new.invoked_at) is not null
begin
    insert into skill_hour (
        skill_name, hour, kind, completed, failed, rejected, cancelled, interrupted, no_result,
        duration_n, duration_sum
    )
    select new.skill_name,
           case when new.invoked_at glob '????-??-??T??:*+00:00' then substr(new.invoked_at, 1, 13)
                else strftime('%Y-%m-%dT%H', new.invoked_at) end,
           kind,
           outcome = 'completed', outcome = 'failed', outcome = 'rejected', outcome = 'cancelled',
           outcome = 'interrupted', outcome = 'no_result',
           new.duration_seconds is not null, coalesce(new.duration_seconds, 0.0)
    from (
        select coalesce(c.kind, 'skill') as kind,
               coalesce(c.outcome, case
                   when new.completed = 1 then 'completed'
                   when coalesce(new.error_type, '') <> '' then 'failed'
                   else 'no_result' end) as outcome
        from (select 1) left join skill_user_interactions c on c.invocation_id = new.id
    )
    where true
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
