-- Adds the hours of pruned days to skill_hour, after count_hours_anew.sql.

insert into skill_hour (
    skill_name, hour, kind, completed, failed, rejected, cancelled, interrupted, no_result,
    duration_n, duration_sum
)
select skill_name, hour, min(kind), sum(completed), sum(failed), sum(rejected), sum(cancelled),
       sum(interrupted), sum(no_result), sum(duration_n), sum(duration_sum)
from sb_pruned_hours
where true
group by hour, skill_name
on conflict (hour, skill_name) do update set
    completed = completed + excluded.completed,
    failed = failed + excluded.failed,
    rejected = rejected + excluded.rejected,
    cancelled = cancelled + excluded.cancelled,
    interrupted = interrupted + excluded.interrupted,
    no_result = no_result + excluded.no_result,
    duration_n = duration_n + excluded.duration_n,
    duration_sum = duration_sum + excluded.duration_sum;
