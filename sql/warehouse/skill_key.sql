-- Rows for skill_key: the skill names, with their kind, of set_news that have no number yet.

select
    cast((select coalesce(max(skill), 0) from skill_key)
        + row_number() over (order by skill_name, kind) as INTEGER) as skill,
    skill_name,
    kind
from (select distinct skill_name, kind from set_news) n
where not exists (
    select 1 from skill_key k where k.skill_name = n.skill_name and k.kind = n.kind
)
