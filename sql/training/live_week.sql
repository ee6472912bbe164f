-- One row: the runs of :skill in the hours :first ('YYYY-MM-DDTHH') and the 168 after it, by start.
-- One seek per hour: a range over the hours would read every skill.

with recursive hours(hour, n) as (
    select :first, 0
    union all
    select strftime('%Y-%m-%dT%H', hour || ':00', '+1 hour'), n + 1 from hours where n < 168
)
select total(completed + failed + rejected + cancelled + interrupted + no_result),
       total(completed), total(completed + failed)
from hours
join skill_hour on skill_hour.hour = hours.hour and skill_name = :skill
