-- One row per skill of training_uses, by name.

select
    skill_name,
    cast(sum(completed) as BIGINT) as completed,
    cast(sum(decided) as BIGINT) as decided
from training_uses
group by skill_name
order by skill_name
