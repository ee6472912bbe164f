-- engine: duckdb (VARCHAR without a length)
-- What a snapshot says about itself: one row, written last in the transaction of its tables.
-- number             also the file's name
-- watermark_id       every invocation up to this id is in the tables
-- watermark_at       latest start among them, UTC; NULL where there is none
-- table_counts       JSON object, table -> rows
-- invalid_rows       invocations up to the watermark whose start cannot be read
-- out_of_range_rows  those outside the days that are computed

create table manifest (
    schema_version INTEGER not null,
    number INTEGER not null,
    watermark_id BIGINT not null,
    watermark_at TIMESTAMP,
    published_at TIMESTAMP not null,
    code_version VARCHAR not null,
    table_counts VARCHAR not null,
    invalid_rows BIGINT not null,
    out_of_range_rows BIGINT not null
)
