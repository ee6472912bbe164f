-- Moves the new rows of temp table incoming into the log, its companion and the aggregates that
-- the triggers would otherwise keep row by row. :base is the first free id minus one. Copies were
-- deleted from incoming before. Statements run in this order, in one transaction. Incoming times
-- are canonical, so that among them text sorts like time.

insert into skill_user_interactions (
    id, invocation_id, user_id, session_id, skill_name, invoked_at, completed, rating, event_id,
    ended_at, project_id, outcome, kind, source, agent, agent_version, model, "trigger",
    duration_source, phase_inferred, tool_calls, tool_failures
)
select :base + seq, :base + seq, user_id, session_id, skill_name, invoked_at, completed, rating,
       event_id, ended_at, project_id, outcome, kind, source, agent, agent_version, model,
       "trigger", duration_source, phase_inferred, tool_calls, tool_failures
from incoming order by seq;

insert into skill_invocation (
    id, skill_name, invoked_at, session_id, workflow_path, completed, duration_seconds, error_type,
    workflow_phase, workflow_step_id
)
select :base + seq, skill_name, invoked_at, session_id, workflow_path, completed, duration_seconds,
       error_type, workflow_phase, workflow_step_id
from incoming order by seq;

insert into temp.incoming_skill
select skill_name, count(*), sum(completed), count(duration_seconds), total(duration_seconds),
       min(invoked_at), max(invoked_at)
from incoming group by skill_name;

insert into temp.incoming_path
select skill_name, workflow_path, count(*)
from incoming where workflow_path is not null group by skill_name, workflow_path;

insert into temp.incoming_error
select skill_name, error_type, count(*)
from incoming where error_type is not null group by skill_name, error_type;

-- Per skill, by the rules of trg_skill_metrics_after_insert.
insert into skill_metrics (skill_name) select skill_name from incoming_skill
where true on conflict (skill_name) do nothing;

update skill_metrics as m set
    total_invocations = m.total_invocations + s.n,
    completed_invocations = m.completed_invocations + s.completed,
    abandoned_invocations = m.abandoned_invocations + s.n - s.completed,
    total_duration_seconds = m.total_duration_seconds + s.duration_sum,
    first_invoked = case
        when julianday(m.first_invoked) is null then s.first_at
        when (julianday(s.first_at), s.first_at) < (julianday(m.first_invoked), m.first_invoked)
            then s.first_at
        else m.first_invoked end,
    last_invoked = case
        when julianday(m.last_invoked) is null then s.last_at
        when (julianday(s.last_at), s.last_at) > (julianday(m.last_invoked), m.last_invoked)
            then s.last_at
        else m.last_invoked end,
    completion_rate = 100.0 * (m.completed_invocations + s.completed)
        / (m.total_invocations + s.n),
    avg_duration_seconds = case
        when s.duration_n = 0 then m.avg_duration_seconds
        when m.avg_duration_seconds is null then s.duration_sum / s.duration_n
        when m.avg_duration_seconds = 0 and s.duration_sum = 0 then 0.0
        when m.avg_duration_seconds = 0 then (
            select avg(duration_seconds) from skill_invocation where skill_name = m.skill_name)
        else (m.total_duration_seconds + s.duration_sum)
            / (round(m.total_duration_seconds / m.avg_duration_seconds) + s.duration_n) end,
    updated_at = datetime('now')
from incoming_skill s where s.skill_name = m.skill_name;

-- The two JSON counters, merged by key for the skills of this chunk.
update skill_metrics set workflow_paths = (
    select json_group_object(key, n) from (
        select key, sum(n) as n from (
            select key, value as n
            from json_each(iif(json_valid(workflow_paths), workflow_paths, '{}'))
            union all
            select key, n from incoming_path p where p.skill_name = skill_metrics.skill_name
        ) group by key
    ))
where skill_name in (select skill_name from incoming_path);

update skill_metrics set common_errors = (
    select json_group_object(key, n) from (
        select key, sum(n) as n from (
            select key, value as n
            from json_each(iif(json_valid(common_errors), common_errors, '{}'))
            union all
            select key, n from incoming_error e where e.skill_name = skill_metrics.skill_name
        ) group by key
    ))
where skill_name in (select skill_name from incoming_error);

insert into session_skills (session_id, skill_name, invocation_count)
select session_id, skill_name, count(*) from incoming
where true
group by session_id, skill_name
on conflict (session_id, skill_name) do update set
    invocation_count = invocation_count + excluded.invocation_count;

insert into skill_metrics_cache (skill_name, last_invocation_at, updated_at)
select skill_name, last_at, strftime('%Y-%m-%dT%H:%M:%f000+00:00', 'now') from incoming_skill
where true
on conflict (skill_name) do update set
    last_invocation_at = excluded.last_invocation_at, updated_at = excluded.updated_at
    where julianday(last_invocation_at) is null
       or (julianday(excluded.last_invocation_at), excluded.last_invocation_at)
          > (julianday(last_invocation_at), last_invocation_at);

insert into skill_hour (
    skill_name, hour, kind, completed, failed, rejected, cancelled, interrupted, no_result,
    duration_n, duration_sum
)
select skill_name, substr(invoked_at, 1, 13) as hour, min(kind),
       sum(outcome = 'completed'), sum(outcome = 'failed'), sum(outcome = 'rejected'),
       sum(outcome = 'cancelled'), sum(outcome = 'interrupted'), sum(outcome = 'no_result'),
       count(duration_seconds), total(duration_seconds)
from incoming
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
