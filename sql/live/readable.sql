-- engine: duckdb (the warehouse's own reading of a time, see warehouse/events.sql)
-- Those of $texts that are a time of the years 1 to 9999.

select text
from (
    select
        text,
        case
            when text like '____-__-__T__:__:__.______+00:00' and substr(text, 12, 2) <> '24'
                then try_cast(text as TIMESTAMP)
            when regexp_full_match(
                text,
                '\d{4}-\d\d-\d\d([ T]([01]\d|2[0-3]):\d\d(:\d\d(\.\d+)?)?(Z|[+-](0\d|1[0-4]):[0-5]\d)?)?'
            ) then cast(try_cast(text as TIMESTAMPTZ) as TIMESTAMP)
        end as parsed
    from (select unnest($texts) as text)
)
where parsed >= TIMESTAMP '0001-01-01' and parsed < TIMESTAMP '9999-12-31'
