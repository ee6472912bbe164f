"""Asset definitions, one module per subject; assets read, call a pure function, write, report.

Every module here has `defs(settings) -> dagster.Definitions`, which `sb_pipelines.definitions`
finds by itself. Nothing is read at import: what depends on a setting is made inside `defs`.
"""
