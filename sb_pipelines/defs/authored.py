"""The authored tables, which people write: experiments, taxonomy, expected pairs.

They are small, and their truth is `skills.db`: each run copies them whole, so that the other assets
can join them and serving can read them. What they mean for an experiment's verdict is not decided
here.
"""

from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
import duckdb

from sb_pipelines.resources import OWNERS, POOL, RETRIES, SkillsDb, Warehouse, user_failures
from sb_serving.settings import Settings

AUTHORED = {
    "ab_test_configs": "Experiments: what is compared, and how many users it needs.",
    "ab_test_assignments": "Which user is in which arm of an experiment.",
    "ab_test_outcomes": "What came of it, one row per outcome.",
    "skill_categories": "The taxonomy's categories.",
    "skill_category_mapping": "Which skill is in which category.",
    "skill_modalities": "What a skill reads and writes, and whether a human must look at it.",
    "expected_dependencies": "Pairs of skills that somebody expects to go together.",
}

MADE_LATER = ("expected_dependencies",)
"""Those that the first row makes: without the table there are none."""


def copy(connection: duckdb.DuckDBPyConnection, skills: SkillsDb) -> dict[str, int]:
    """Replace the copies, in the caller's transaction.

    Returns:
        Rows by table.

    Raises:
        SbError: There is no event store, or it has another form.
    """
    counts = {}
    for table in AUTHORED:
        described = connection.execute(f"describe {table}").fetchall()
        fits = [_FITTING[str(column[1])] for column in described]
        there = table not in MADE_LATER or skills.has(table)
        found = skills.table(table, [str(column[0]) for column in described]) if there else []
        rows = [[fit(value) for fit, value in zip(fits, row, strict=True)] for row in found]
        connection.execute(f"delete from {table}")  # noqa: S608
        appender = connection.appender(table)
        appender.append_rows(rows)
        appender.flush()
        counts[table] = len(rows)
    return counts


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _flag(value: Any) -> bool | None:
    return bool(value) if value in (0, 1) else None


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


_FITTING: dict[str, Callable[[Any], Any]] = {
    "BIGINT": _whole,
    "DOUBLE": _number,
    "BOOLEAN": _flag,
    "VARCHAR": _text,
}
"""DuckDB's type -> the value as it takes it; SQLite stores anything in any column."""


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            table,
            # After events: a store that was replaced empties the warehouse there.
            deps=["skills_db", "events"],
            group_name="ingest",
            owners=OWNERS,
            kinds={"duckdb"},
            description=f"{description} A copy of the table in skills.db.",
        )
        for table, description in AUTHORED.items()
    ],
    name="authored",
    pool=POOL,
    retry_policy=RETRIES,
)
def authored(skills: SkillsDb, warehouse: Warehouse) -> Iterator[dg.MaterializeResult]:  # type: ignore[type-arg]
    """Copy the authored tables."""
    with user_failures(), warehouse.writing() as connection:
        counts = copy(connection, skills)
    for table, rows in counts.items():
        yield dg.MaterializeResult(asset_key=table, metadata={"dagster/row_count": rows})


def defs(settings: Settings) -> dg.Definitions:
    """The assets, made by one step."""
    return dg.Definitions(assets=[authored])
