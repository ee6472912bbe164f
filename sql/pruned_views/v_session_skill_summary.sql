-- since: V1
-- views/v_session_skill_summary.sql in a file of which days were pruned: their totals count too, and
-- their starts stand in canonical form.

create view v_session_skill_summary as
select session_id,
       count(distinct skill_name) as unique_skills,
       sum(n) as total_invocations,
       sum(completed) as completed_count,
       sum(n) - sum(completed) as abandoned_count,
       total(seconds) as total_duration_seconds,
       substr(min(first_at), 24) as first_skill_at,
       substr(max(last_at), 24) as last_skill_at
from (
    select session_id, skill_name, count(*) as n, sum(completed = 1) as completed,
           total(duration_seconds) as seconds,
           min(strftime('%Y-%m-%dT%H:%M:%f', invoked_at) || invoked_at) as first_at,
           max(strftime('%Y-%m-%dT%H:%M:%f', invoked_at) || invoked_at) as last_at
    from skill_invocation
    group by session_id, skill_name
    union all
    select session_id, skill_name, n, completed, duration_sum,
           strftime('%Y-%m-%dT%H:%M:%f', first_at) || first_at,
           strftime('%Y-%m-%dT%H:%M:%f', last_at) || last_at
    from sb_pruned_sessions
) parts
group by session_id;
