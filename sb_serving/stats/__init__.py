"""Pure statistics: arrays in, numbers out.

No Dagster, no database, no sockets, no clock. Each module holds one method and names it in its
docstring; `docs/statistics.md` compares them with what was tried.
"""
