-- Grain of pair_order: one row per pair of skills, a < b, that a session holds both of.
-- n_a_first  such sessions in which a was first used before b; n_b_first the other way round.
-- n_tied     sessions that cannot tell: both were first used at the same time.
-- What the sessions of uses_after give, less what those of uses_before gave.

select
    a,
    b,
    cast(sum(n_a_first) as BIGINT) as n_a_first,
    cast(sum(n_b_first) as BIGINT) as n_b_first,
    cast(sum(n_tied) as BIGINT) as n_tied
from (
    select a, b, n_a_first, n_b_first, n_tied from pair_order
    union all
    select
        x.skill,
        y.skill,
        count(case when x.first_at < y.first_at then 1 end),
        count(case when x.first_at > y.first_at then 1 end),
        count(case when x.first_at = y.first_at then 1 end)
    from uses_after x
    join uses_after y on x.session = y.session and x.skill < y.skill
    group by x.skill, y.skill
    union all
    select
        x.skill,
        y.skill,
        -count(case when x.first_at < y.first_at then 1 end),
        -count(case when x.first_at > y.first_at then 1 end),
        -count(case when x.first_at = y.first_at then 1 end)
    from uses_before x
    join uses_before y on x.session = y.session and x.skill < y.skill
    group by x.skill, y.skill
) parts
group by a, b
