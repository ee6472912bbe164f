-- since: V4
-- Keeps the time of each skill's latest invocation: the greatest, not the last inserted. The other
-- columns are windows, which a trigger cannot let decay: v_realtime_skill_dashboard computes them.
-- Times are compared as times (to the millisecond, then as text), because another tool may write
-- them in another form; one that cannot be read does not count.

create trigger trg_metrics_cache_after_insert after insert on skill_invocation
when julianday(new.invoked_at) is not null
begin
    insert into skill_metrics_cache (skill_name, last_invocation_at, updated_at)
    values (new.skill_name, new.invoked_at, strftime('%Y-%m-%dT%H:%M:%f000+00:00', 'now'))
    on conflict (skill_name) do update set
        last_invocation_at = excluded.last_invocation_at, updated_at = excluded.updated_at
        where julianday(last_invocation_at) is null
           or (julianday(excluded.last_invocation_at), excluded.last_invocation_at)
              > (julianday(last_invocation_at), last_invocation_at);
end;
