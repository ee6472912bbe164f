-- How many pairs differ between pair_order and recounted_pair_order, or stand on one side only, told by
-- names: numbers depend on the order of arrival, and with them which of a pair is a.

select count(*) as n
from (
    select
        case when x.name < y.name then x.name else y.name end as first_name,
        case when x.name < y.name then y.name else x.name end as second_name,
        sum(case when x.name < y.name then t.n_a_first else t.n_b_first end) as n_first,
        sum(case when x.name < y.name then t.n_b_first else t.n_a_first end) as n_second,
        sum(t.n_tied) as n_tied,
        count(*) as times
    from pair_order t
    join (select skill, concat(kind, ' ', skill_name) as name from skill_key) x on x.skill = t.a
    join (select skill, concat(kind, ' ', skill_name) as name from skill_key) y on y.skill = t.b
    group by 1, 2
) g
full outer join (
    select
        case when x.name < y.name then x.name else y.name end as first_name,
        case when x.name < y.name then y.name else x.name end as second_name,
        sum(case when x.name < y.name then t.n_a_first else t.n_b_first end) as n_first,
        sum(case when x.name < y.name then t.n_b_first else t.n_a_first end) as n_second,
        sum(t.n_tied) as n_tied,
        count(*) as times
    from recounted_pair_order t
    join (select skill, concat(kind, ' ', skill_name) as name from recounted_skill_key) x
        on x.skill = t.a
    join (select skill, concat(kind, ' ', skill_name) as name from recounted_skill_key) y
        on y.skill = t.b
    group by 1, 2
) r on g.first_name = r.first_name and g.second_name = r.second_name
where
    g.times is null
    or r.times is null
    or g.n_first <> r.n_first
    or g.n_second <> r.n_second
    or g.n_tied <> r.n_tied
    or g.times <> r.times
