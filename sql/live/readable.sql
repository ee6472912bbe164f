-- engine: duckdb (the warehouse's own reading of a time, see warehouse/events.sql)
-- Those of $texts that are a time of the years 1 to 9999.

select text
from (
    select
        text,
        case
            when text like '____-__-__T__:__:__.______+00:00' then try_cast(text as TIMESTAMP)
            when text like '____-__-__%' then cast(try_cast(text as TIMESTAMPTZ) as TIMESTAMP)
        end as parsed
    from (select unnest($texts) as text)
)
where parsed >= TIMESTAMP '0001-01-01' and parsed < TIMESTAMP '9999-12-31'
