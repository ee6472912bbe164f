"""Finds and reads the `.sql` files.

A wheel carries them inside this package as `_sql/`; a checkout has them in `sql/` at the top. No
SQL is built here.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path


def root() -> Path:
    """The folder that holds `migrations/`, `views/`, `store/`, `live/` and `warehouse/`."""
    packaged = Path(__file__).parent / "_sql"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "sql"


@cache
def load(name: str) -> str:
    """The text of `sql/<name>`, for example `warehouse/skill_time_series.sql`."""
    return (root() / name).read_text(encoding="utf-8")
