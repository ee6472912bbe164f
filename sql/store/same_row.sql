-- The row that a record without an event id would repeat. The + keep SQLite on the index of
-- invoked_at: a session may have many thousand rows, a microsecond hardly two.

select id from skill_invocation
where invoked_at = :invoked_at and +session_id = :session_id and +skill_name = :skill_name
limit 1
