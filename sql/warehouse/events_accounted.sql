-- One row: the events inside [$start, $end), the days that have a partition, and outside of it, and
-- the invalid ones. Together they are every row that was read from skills.db and not
-- pruned since.

select
    (select count(*) from events where invoked_at >= $start and invoked_at < $end) as in_range,
    (select count(*) from events where invoked_at < $start or invoked_at >= $end) as out_of_range,
    (select count(*) from invalid_events) as invalid
