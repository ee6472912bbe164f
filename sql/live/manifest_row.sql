-- engine: duckdb (named parameters of a snapshot)
-- The one row of manifest.sql.

insert into manifest values (
    $schema_version, $number, $watermark_id, $watermark_at, $published_at, $code_version,
    $table_counts, $invalid_rows, $out_of_range_rows
)
