-- Grain: one row per event of anomaly_asked (see anomaly_factors.sql) whose runs before since have
-- durations: the duration that the share $quick of them stays below where quick runs are counted,
-- that the share $slow stays below where slow ones are.

select
    asked.event,
    case
        when asked.bad = 'quick'
            then percentile_cont(cast($quick as DOUBLE)) within group (order by duration_seconds)
        else percentile_cont(cast($slow as DOUBLE)) within group (order by duration_seconds)
    end as seconds
from events
inner join anomaly_asked as asked on events.skill_name = asked.skill_name
where asked.bad in ('quick', 'slow')
  and events.duration_seconds is not null
  and events.invoked_at >= $earliest
  and events.invoked_at >= asked.start
  and events.invoked_at < asked.since
group by asked.event, asked.bad
