-- engine: duckdb (a temporary table for the statements after it; epoch_us)
-- One row per user and skill of the table or view events, but for skills of the kind $without.
-- user_id    '' stands for all unknown users together.
-- decided    completed plus failed events.
-- first_at   first use, microseconds since 1970; 0 where no time is known.

create or replace temp table training_uses as
select
    coalesce(user_id, '') as user_id,
    skill_name,
    sum(case when outcome = 'completed' then 1 else 0 end) as completed,
    sum(case when outcome in ('completed', 'failed') then 1 else 0 end) as decided,
    coalesce(epoch_us(min(invoked_at)), 0) as first_at
from events
where cast($without as VARCHAR) is null or kind is distinct from $without
group by coalesce(user_id, ''), skill_name
