-- since: V4
-- One row per skill that has a baseline. Session-Buddy's columns name no user, so "user" is
-- everything recorded in this file, counted from skill_hour, against the baseline. Rates are
-- completed / (completed + failed), fractions; delta is their difference.

create view v_community_baseline_comparison as
with own as (
    select skill_name,
           sum(completed + failed + rejected + cancelled + interrupted + no_result) as n,
           1.0 * sum(completed) / nullif(sum(completed + failed), 0) as rate
    from skill_hour
    group by skill_name
)
select b.skill_name,
       coalesce(o.n, 0) as user_invocations,
       o.rate as user_completion_rate,
       b.global_completion_rate as baseline_completion_rate,
       b.effectiveness_percentile,
       o.rate - b.global_completion_rate as delta_from_baseline
from skill_community_baselines b
left join own o using (skill_name);
