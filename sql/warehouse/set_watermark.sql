-- engine: duckdb (on conflict; "at" is a keyword)
-- Moves the watermark $name to $id; see watermarks in schema.sql.

insert into watermarks (name, id, "at")
values ($name, $id, $at)
on conflict (name) do update set id = excluded.id, "at" = excluded."at"
