-- engine: duckdb (ASOF join)
-- Every $every-th row of training_facts with what was known of its session when it started: of the runs
-- of the session whose outcomes were known before, in the order in which they became known.
-- session_n, _completed, _decided  how many; 0 in a new session.
-- session_failures     failures among the last three.
-- session_last_failed  1 if the last one failed.
-- session_begun_at     earliest start among them, NULL in a new session.
-- previous             skill of the last one, NULL in a new session.

create or replace temp table training_asked as
with sequence as (
    select
        session_code,
        known_at + 1 as moment,
        lead(known_at) over later as next_known_at,
        count(*) over so_far as session_n,
        sum(completed) over so_far as session_completed,
        sum(decided) over so_far as session_decided,
        sum(failed) over (
            partition by session_code order by known_at, row rows between 2 preceding and current row
        ) as session_failures,
        failed as session_last_failed,
        min(asked_at) over so_far as session_begun_at,
        skill as previous
    from training_facts
    where session_code is not null
    window
        later as (partition by session_code order by known_at, row),
        so_far as (partition by session_code order by known_at, row rows unbounded preceding)
),
states as (
    -- Of runs that became known in the same microsecond the last one has counted all.
    select * from sequence where next_known_at is null or next_known_at >= moment
)
select
    f.*,
    cast(coalesce(s.session_n, 0) as INTEGER) as session_n,
    cast(coalesce(s.session_completed, 0) as INTEGER) as session_completed,
    cast(coalesce(s.session_decided, 0) as INTEGER) as session_decided,
    cast(coalesce(s.session_failures, 0) as INTEGER) as session_failures,
    cast(coalesce(s.session_last_failed, 0) as INTEGER) as session_last_failed,
    s.session_begun_at,
    s.previous
from training_facts f
asof left join states s on s.session_code = f.session_code and s.moment <= f.asked_at
where f.row % $every = 0
