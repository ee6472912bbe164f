-- engine: duckdb (ASOF join)
-- One row per row of training_asked, in its order: how many runs of the same $scope were known just
-- before it started, how many of them completed, and how many completed or failed.
-- $scope   what "the same" means; `previous` asks for the skill that ran before in the session.
-- $window  `ever`; `week`, see facts.sql; `span`, the $span microseconds before, by known_at.
-- A run enters a count one microsecond after it was known, and leaves it by its window. Counts so
-- far, summed in the order of these moments, hold the answer at the last moment not after asked_at.

with counted as (
    select
        case $scope
            when 'all' then 0
            when 'skill' then skill
            when 'user' then user_code
            when 'user_skill' then user_skill
            when 'version' then skill_version
            when 'phase' then phase
            when 'agent' then agent_code
            when 'model' then model_code
            when 'previous' then skill
        end as counted_key,
        known_at + 1 as enters,
        case $window
            when 'week' then week_until
            when 'span' then known_at + 1 + $span
        end as leaves,
        completed,
        decided
    from training_facts
),
moves as (
    select counted_key, enters as moment, 1 as n, completed, decided
    from counted
    where counted_key is not null and (leaves is null or leaves > enters)
    union all
    select counted_key, leaves, -1, -completed, -decided
    from counted
    where counted_key is not null and leaves > enters
),
so_far as (
    select
        counted_key,
        moment,
        -- The default frame takes in all moves of one moment: whichever of them the join meets,
        -- it has counted the others.
        sum(n) over running as n,
        sum(completed) over running as completed,
        sum(decided) over running as decided
    from moves
    window running as (partition by counted_key order by moment)
),
asked as (
    select
        row,
        asked_at,
        case $scope
            when 'all' then 0
            when 'skill' then skill
            when 'user' then user_code
            when 'user_skill' then user_skill
            when 'version' then skill_version
            when 'phase' then phase
            when 'agent' then agent_code
            when 'model' then model_code
            when 'previous' then previous
        end as asked_key
    from training_asked
)
select
    cast(coalesce(s.n, 0) as INTEGER) as n,
    cast(coalesce(s.completed, 0) as INTEGER) as completed,
    cast(coalesce(s.decided, 0) as INTEGER) as decided
from asked a
asof left join so_far s on s.counted_key = a.asked_key and s.moment <= a.asked_at
order by a.row
