-- Takes the rows of temp table pruning (their ids, and starts as canonical text), all of the UTC day
-- :day, out of the log and leaves their totals. Statements run in this order, in one transaction.

insert into sb_pruned_totals
select :day, skill_name, kind, workflow_phase, outcome, count(*), count(d), total(d),
       total(d <= 0.1), total(d <= 0.5), total(d <= 1), total(d <= 2), total(d <= 5), total(d <= 10),
       total(d <= 30), total(d <= 60), total(d <= 300), max(at)
from temp.pruned_rows
group by skill_name, kind, workflow_phase, outcome;

insert into sb_pruned_users (
    user_id, skill_name, kind, agent, agent_version, model, n, completed, decided, first_at
)
select user_id, skill_name, kind, agent, agent_version, model, count(*),
       sum(outcome = 'completed'), sum(outcome in ('completed', 'failed')), min(at)
from temp.pruned_rows
where true
group by user_id, skill_name, kind, agent, agent_version, model
on conflict do update set
    n = n + excluded.n,
    completed = completed + excluded.completed,
    decided = decided + excluded.decided,
    first_at = min(first_at, excluded.first_at);

insert into sb_pruned_sessions
select session_id, skill_name, kind, count(*), sum(outcome = 'completed'), total(d), min(at), max(at)
from temp.pruned_rows
group by session_id, skill_name, kind;

delete from sb_pruned_hours where hour >= :day || 'T' and hour < :day || 'U';

insert into skill_invocation_fts (skill_invocation_fts, rowid, user_query)
select 'delete', i.id, i.user_query
from skill_invocation i
where i.id in (select id from temp.pruning) and i.user_query is not null
  and exists (select 1 from skill_invocation_fts_docsize s where s.id = i.id);

delete from skill_user_interactions where invocation_id in (select id from temp.pruning);

delete from skill_invocation where id in (select id from temp.pruning);

insert into sb_pruned_days (day, n, last_id, pruned_at)
select :day, count(*), max(id), strftime('%Y-%m-%dT%H:%M:%f000+00:00', 'now') from temp.pruning
where true
on conflict (day) do update set
    n = n + excluded.n,
    last_id = max(last_id, excluded.last_id),
    pruned_at = excluded.pruned_at;
