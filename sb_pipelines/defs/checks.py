"""Checks that every refresh makes before it publishes; each blocks what stands on a wrong table.

Here: comparisons of finished tables. Whether the grown state equals a recount from the beginning is
asked once a week, in `audit`.
"""

import dagster as dg

from sb_pipelines.defs.time_series import daily, whole_range
from sb_pipelines.resources import POOL, SkillsDb, Warehouse, one_row, user_failures, watermark
from sb_serving import sql
from sb_serving.settings import Settings

SHOWN = 5
"""Broken rows listed in a failed check."""


def events_complete(partitions: dg.DailyPartitionsDefinition) -> dg.AssetChecksDefinition:
    """The count check, for the days that have a partition."""

    @dg.asset_check(asset="events", blocking=True, pool=POOL)
    def events_complete(skills: SkillsDb, warehouse: Warehouse) -> dg.AssetCheckResult:
        """Rows in range, out of range, invalid and pruned are together all that were recorded."""
        start, end = whole_range(partitions)
        with user_failures(), warehouse.reading() as connection:
            known, _ = watermark(connection, "events")
            in_range, out_of_range, invalid = one_row(
                connection,
                sql.load("warehouse/events_accounted.sql"),
                {"start": start, "end": end},
            )
            (pruned,) = one_row(connection, "select coalesce(sum(n), 0) from pruned_days")
        expected = skills.count_until(known)
        return dg.AssetCheckResult(
            passed=in_range + out_of_range + invalid + pruned == expected,
            description=f"{expected} rows were recorded in {skills.path} up to id {known}",
            metadata={
                "in_range": in_range,
                "out_of_range": out_of_range,
                "invalid": invalid,
                "pruned": int(pruned),
                "skills_db": expected,
            },
        )

    return events_complete


@dg.asset_check(asset="skill_time_series", blocking=True, pool=POOL)
def rows_are_possible(warehouse: Warehouse) -> dg.AssetCheckResult:
    """Rates lie in [0, 1], outcomes add up to n, no part is larger than the whole."""
    with user_failures(), warehouse.reading() as connection:
        broken = connection.execute(sql.load("warehouse/skill_time_series_broken.sql")).fetchall()
    return dg.AssetCheckResult(
        passed=not broken,
        metadata={"broken_rows": len(broken), "examples": str(broken[:SHOWN])},
    )


@dg.asset_check(
    asset="skill_totals",
    additional_deps=["skill_time_series"],
    blocking=True,
    pool=POOL,
)
def series_sums_to_totals(warehouse: Warehouse) -> dg.AssetCheckResult:
    """The hours of each skill sum to its totals, by outcome.

    Two programs that refresh at once may leave one table a few rows ahead of the other until the
    second has finished; then there is nothing to compare.
    """
    with user_failures(), warehouse.reading() as connection:
        series, _ = watermark(connection, "series")
        totals, _ = watermark(connection, "totals")
        if series != totals:
            return dg.AssetCheckResult(
                passed=True,
                description=f"not compared: the series stands at id {series}, the totals at "
                f"{totals}; the next refresh compares them",
            )
        wrong = connection.execute(sql.load("warehouse/series_against_totals.sql")).fetchall()
    return dg.AssetCheckResult(
        passed=not wrong,
        metadata={"differing_skills": len(wrong), "examples": str(wrong[:SHOWN])},
    )


def no_broken_rows(
    table: str, name: str, description: str, **parameters: object
) -> dg.AssetChecksDefinition:
    """The blocking check of a result table: `sql/warehouse/<table>_broken.sql` finds no row.

    Args:
        table: The table, also the asset.
        name: The check's name.
        description: What passes, in a sentence.
        **parameters: Of the query.
    """

    @dg.asset_check(
        asset=table, name=name, blocking=True, pool=POOL, description=f"Passes when {description}."
    )
    def check(warehouse: Warehouse) -> dg.AssetCheckResult:
        with user_failures(), warehouse.reading() as connection:
            query = sql.load(f"warehouse/{table}_broken.sql")
            broken = connection.execute(query, parameters).fetchall()
        return dg.AssetCheckResult(
            passed=not broken,
            metadata={"broken_rows": len(broken), "examples": str(broken[:SHOWN])},
        )

    return check


def defs(settings: Settings) -> dg.Definitions:
    """The checks of the base tables."""
    return dg.Definitions(
        asset_checks=[events_complete(daily(settings)), rows_are_possible, series_sums_to_totals]
    )
