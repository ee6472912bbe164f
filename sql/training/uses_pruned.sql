-- engine: duckdb (a temporary table for the statements after it; epoch_us)
-- training_uses with the totals of pruned rows added; $without as in uses.sql.

create or replace temp table training_uses as
select
    user_id,
    skill_name,
    sum(completed) as completed,
    sum(decided) as decided,
    min(first_at) as first_at
from (
    select user_id, skill_name, completed, decided, first_at from training_uses
    union all
    select user_id, skill_name, completed, decided, epoch_us(first_at)
    from pruned_users
    where cast($without as VARCHAR) is null or kind is distinct from $without
) parts
group by user_id, skill_name
