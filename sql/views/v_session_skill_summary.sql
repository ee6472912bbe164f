-- since: V1
-- One row per session. total_duration_seconds is over all rows that have a duration. The first and
-- the last start are told as times, not as text, which may stand in several forms: 23 characters in
-- front of the text make it sort. A time that cannot be read does not count.

create view v_session_skill_summary as
select session_id,
       count(distinct skill_name) as unique_skills,
       count(*) as total_invocations,
       sum(completed = 1) as completed_count,
       sum(completed <> 1) as abandoned_count,
       total(duration_seconds) as total_duration_seconds,
       substr(min(strftime('%Y-%m-%dT%H:%M:%f', invoked_at) || invoked_at), 24) as first_skill_at,
       substr(max(strftime('%Y-%m-%dT%H:%M:%f', invoked_at) || invoked_at), 24) as last_skill_at
from skill_invocation
group by session_id;
