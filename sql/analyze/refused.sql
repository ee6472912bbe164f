-- One row: per column how many values of the file mean nothing, and one of them (as text). NULL, and
-- NaN for a duration, is a missing value, which only skill_name and invoked_at must not have.

select
    {
        'n': count(*) filter (coalesce(trim(cast(skill_name as VARCHAR)), '') = ''),
        'example': ''
    } as skill_name,
    {
        'n': count(*) filter (try_cast(cast(invoked_at as VARCHAR) as TIMESTAMPTZ) is null),
        'example': coalesce(
            min(cast(invoked_at as VARCHAR)) filter (
                try_cast(cast(invoked_at as VARCHAR) as TIMESTAMPTZ) is null
            ),
            ''
        )
    } as invoked_at,
    {
        'n': count(*) filter (cast(outcome as VARCHAR) not in (select unnest($outcomes))),
        'example': min(cast(outcome as VARCHAR)) filter (
            cast(outcome as VARCHAR) not in (select unnest($outcomes))
        )
    } as outcome,
    {
        'n': count(*) filter (
            completed is not null and try_cast(cast(completed as VARCHAR) as BOOLEAN) is null
        ),
        'example': min(cast(completed as VARCHAR)) filter (
            try_cast(cast(completed as VARCHAR) as BOOLEAN) is null
        )
    } as completed,
    {
        'n': count(*) filter (cast(kind as VARCHAR) not in (select unnest($kinds))),
        'example': min(cast(kind as VARCHAR)) filter (
            cast(kind as VARCHAR) not in (select unnest($kinds))
        )
    } as kind,
    {
        'n': count(*) filter (
            duration_seconds is not null
            and not coalesce(
                isnan(try_cast(cast(duration_seconds as VARCHAR) as DOUBLE))
                or try_cast(cast(duration_seconds as VARCHAR) as DOUBLE) between 0 and 1e12,
                false
            )
        ),
        'example': min(cast(duration_seconds as VARCHAR)) filter (
            not coalesce(
                isnan(try_cast(cast(duration_seconds as VARCHAR) as DOUBLE))
                or try_cast(cast(duration_seconds as VARCHAR) as DOUBLE) between 0 and 1e12,
                false
            )
        )
    } as duration_seconds
from given
