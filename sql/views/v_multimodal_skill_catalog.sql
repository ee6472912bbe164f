-- since: V4
-- One row per skill with a modality and, where it is in several categories, per category.
-- completion_rate is completed / (completed + failed), a fraction; avg_duration_seconds is over the
-- rows that have a duration; both are over all hours of skill_hour.

create view v_multimodal_skill_catalog as
with usage as (
    select skill_name, count(distinct session_id) as total_sessions
    from session_skills group by skill_name
),
lifetime as (
    select skill_name,
           1.0 * sum(completed) / nullif(sum(completed + failed), 0) as completion_rate,
           sum(duration_sum) / nullif(sum(duration_n), 0) as avg_duration_seconds
    from skill_hour group by skill_name
)
select s.skill_name, s.modality_type, s.input_format, s.output_format, s.requires_human_review,
       coalesce(u.total_sessions, 0) as total_sessions,
       l.completion_rate,
       l.avg_duration_seconds,
       c.category_name,
       c.domain
from skill_modalities s
left join usage u using (skill_name)
left join lifetime l using (skill_name)
left join skill_category_mapping g using (skill_name)
left join skill_categories c using (category_id);
