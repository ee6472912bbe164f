-- since: V1
-- Keeps skill_metrics, one row per skill over all time. completion_rate is percent of all
-- invocations, as V1 has it. avg_duration_seconds is over the rows that have a duration; V1 has no
-- column for their number, so it is total / average. While all durations are 0 that number is lost:
-- the first other one averages the log itself, once per skill. JSON objects are merged by key: a
-- path or error with dots, brackets or quotes is a key like any other. first_ and last_invoked are
-- the earliest and the latest, compared as times (to the millisecond, then as text); a time that
-- cannot be read does not count. sql/store/bulk_insert.sql folds many rows by the same rules.

create trigger trg_skill_metrics_after_insert after insert on skill_invocation
begin
    insert into skill_metrics (
        skill_name, total_invocations, completed_invocations, abandoned_invocations,
        total_duration_seconds, workflow_paths, common_errors, first_invoked, last_invoked,
        completion_rate, avg_duration_seconds
    ) values (
        new.skill_name, 1, new.completed = 1, new.completed <> 1,
        coalesce(new.duration_seconds, 0.0),
        case when new.workflow_path is null then '{}' else json_object(new.workflow_path, 1) end,
        case when coalesce(new.error_type, '') = '' then '{}' else json_object(new.error_type, 1) end,
        iif(julianday(new.invoked_at) is null, null, new.invoked_at),
        iif(julianday(new.invoked_at) is null, null, new.invoked_at),
        case when new.completed = 1 then 100.0 else 0.0 end,
        new.duration_seconds
    )
    on conflict (skill_name) do update set
        total_invocations = total_invocations + 1,
        completed_invocations = completed_invocations + excluded.completed_invocations,
        abandoned_invocations = abandoned_invocations + excluded.abandoned_invocations,
        total_duration_seconds = total_duration_seconds + excluded.total_duration_seconds,
        workflow_paths = case when new.workflow_path is null then workflow_paths else
            json_patch(iif(json_valid(workflow_paths), workflow_paths, '{}'),
                json_object(new.workflow_path, 1 + coalesce((
                    select value from json_each(iif(json_valid(workflow_paths), workflow_paths, '{}'))
                    where key = new.workflow_path), 0))) end,
        common_errors = case when coalesce(new.error_type, '') = '' then common_errors else
            json_patch(iif(json_valid(common_errors), common_errors, '{}'),
                json_object(new.error_type, 1 + coalesce((
                    select value from json_each(iif(json_valid(common_errors), common_errors, '{}'))
                    where key = new.error_type), 0))) end,
        first_invoked = case
            when excluded.first_invoked is null then first_invoked
            when julianday(first_invoked) is null then excluded.first_invoked
            when (julianday(excluded.first_invoked), excluded.first_invoked)
                 < (julianday(first_invoked), first_invoked) then excluded.first_invoked
            else first_invoked end,
        last_invoked = case
            when excluded.last_invoked is null then last_invoked
            when julianday(last_invoked) is null then excluded.last_invoked
            when (julianday(excluded.last_invoked), excluded.last_invoked)
                 > (julianday(last_invoked), last_invoked) then excluded.last_invoked
            else last_invoked end,
        completion_rate = 100.0 * (completed_invocations + excluded.completed_invocations)
            / (total_invocations + 1),
        avg_duration_seconds = case
            when new.duration_seconds is null then avg_duration_seconds
            when avg_duration_seconds is null then new.duration_seconds
            when avg_duration_seconds = 0 and new.duration_seconds = 0 then 0.0
            when avg_duration_seconds = 0 then (
                select avg(duration_seconds) from skill_invocation where skill_name = new.skill_name)
            else (total_duration_seconds + new.duration_seconds)
                / (round(total_duration_seconds / avg_duration_seconds) + 1) end,
        updated_at = datetime('now');
end;
