-- since: V4
-- One row per skill over its last 7 UTC days with a decided run, from skill_hour. The rates are
-- daily, completed / (completed + failed), fractions. trend_slope is the least-squares slope per
-- day, each day weighted by its decided runs; NULL below two days. It has no interval: for a
-- judgement ask skill_trends.

create view v_skill_effectiveness_trend as
with daily as (
    select skill_name,
           julianday(substr(hour, 1, 10)) as day,
           1.0 * sum(completed) / sum(completed + failed) as rate,
           sum(completed + failed) as n
    from skill_hour
    where hour >= strftime('%Y-%m-%d', 'now', '-6 days') and hour <= strftime('%Y-%m-%dT%H', 'now')
    group by skill_name, substr(hour, 1, 10)
    having n > 0
),
centre as (
    select skill_name, sum(n * day) / sum(n) as day, sum(n * rate) / sum(n) as rate
    from daily group by skill_name
)
select d.skill_name,
       sum(d.n * d.rate) / sum(d.n) as avg_completion_rate_7d,
       max(d.rate) as max_completion_rate_7d,
       min(d.rate) as min_completion_rate_7d,
       case when count(*) > 1 then
           sum(d.n * (d.day - c.day) * (d.rate - c.rate)) / sum(d.n * (d.day - c.day) * (d.day - c.day))
       end as trend_slope
from daily d join centre c using (skill_name)
group by d.skill_name;
