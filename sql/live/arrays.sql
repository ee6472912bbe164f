-- engine: duckdb (an array column)
-- Numeric arrays of a snapshot, one row each: little-endian bytes in row-major order.
-- dtype  as numpy writes it, for example '<f8'

create table if not exists arrays (
    name VARCHAR primary key,
    dtype VARCHAR not null,
    shape BIGINT[] not null,
    data BLOB not null
)
