-- One row per skill_name and kind whose hours do not sum to its totals. duration_sum is a sum of
-- floating point numbers in another order, so it may differ in its last digits.

select
    coalesce(s.skill_name, t.skill_name) as skill_name,
    coalesce(s.kind, t.kind) as kind,
    coalesce(s.n, 0) as series_n,
    coalesce(t.n, 0) as totals_n
from (
    select
        skill_name, kind,
        sum(n) as n,
        sum(completed) as completed,
        sum(failed) as failed,
        sum(rejected) as rejected,
        sum(cancelled) as cancelled,
        sum(interrupted) as interrupted,
        sum(no_result) as no_result,
        sum(duration_n) as duration_n,
        sum(duration_sum) as duration_sum
    from skill_time_series
    group by skill_name, kind
) s
full outer join (
    select
        skill_name, kind,
        sum(n) as n,
        sum(case when outcome = 'completed' then n else 0 end) as completed,
        sum(case when outcome = 'failed' then n else 0 end) as failed,
        sum(case when outcome = 'rejected' then n else 0 end) as rejected,
        sum(case when outcome = 'cancelled' then n else 0 end) as cancelled,
        sum(case when outcome = 'interrupted' then n else 0 end) as interrupted,
        sum(case when outcome = 'no_result' then n else 0 end) as no_result,
        sum(duration_n) as duration_n,
        sum(duration_sum) as duration_sum
    from skill_totals
    group by skill_name, kind
) t on s.skill_name = t.skill_name and s.kind = t.kind
where s.n is null
   or t.n is null
   or s.n <> t.n
   or s.completed <> t.completed
   or s.failed <> t.failed
   or s.rejected <> t.rejected
   or s.cancelled <> t.cancelled
   or s.interrupted <> t.interrupted
   or s.no_result <> t.no_result
   or s.duration_n <> t.duration_n
   or abs(s.duration_sum - t.duration_sum) > 0.000001 * (1 + abs(t.duration_sum))
order by 1, 2
