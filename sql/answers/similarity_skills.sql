-- The skills of the recommendations, in the order of their arrays.

select skill_name
from user_similarity
order by skill
