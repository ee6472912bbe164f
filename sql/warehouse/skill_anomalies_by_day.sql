-- One row per UTC day from $start on with anomalies that began on it, retracted ones left out.

select date_trunc('day', since) as day, count(*) as n
from skill_anomalies
where since >= $start and retracted_at is null
group by date_trunc('day', since)
order by day
