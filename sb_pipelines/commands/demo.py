"""`sb demo`: believable data for a first look, tests and benchmarks."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from sb_pipelines.commands import options
from sb_serving import times
from sb_serving.settings import Settings
from sb_serving.store import Store


@click.command()
@click.option("--rows", default=20_000, show_default=True, type=click.IntRange(min=0))
@click.option("--seed", default=1, show_default=True, type=int)
@click.option("--days", default=90, show_default=True, type=click.IntRange(min=1))
@click.option("--end", help="Time of the last event, ISO 8601; the current time if not given.")
@click.option("--no-failure", is_flag=True, help="Plant no failure.")
@click.option("--no-signal", is_flag=True, help="Outcomes depend on the skill alone.")
@click.option("--stationary", is_flag=True, help="Constant rates and volumes.")
@options.home
@options.db
@options.as_json
def command(
    rows: int,
    seed: int,
    days: int,
    end: str | None,
    no_failure: bool,
    no_signal: bool,
    stationary: bool,
    home: Path | None,
    skills_db: Path | None,
    as_json: bool,
) -> None:
    """Fill a database with demo data; running it again adds nothing."""
    settings = Settings.load(home=home, skills_db=skills_db)
    summary = fill(
        settings,
        rows=rows,
        seed=seed,
        days=days,
        end=times.from_text(times.to_utc_text(end)) if end else times.now(),
        planted_failure=not (no_failure or stationary),
        signal=not no_signal,
        stationary=stationary,
    )
    if as_json:
        options.print_json(summary)
    else:
        click.echo(
            f"{summary['inserted']:,} demo invocations added to {settings.skills_db}"
            f" ({summary['duplicates']:,} were there already)"
        )
        if planted := summary.get("planted"):
            click.echo(f"planted: {planted}")


def fill(settings: Settings, *, end: datetime, rows: int, **plan: object) -> dict[str, object]:
    """Draw a plan's invocations and import them.

    Returns:
        `inserted`, `duplicates`, the seed, and what was planted.
    """
    from sb_serving import demo

    drawn = demo.DemoPlan(n=rows, end=end, **plan)  # type: ignore[arg-type]
    with Store.open(settings.skills_db, create=True) as store:
        result = store.bulk_import(demo.invocations(drawn))
    summary: dict[str, object] = {
        "inserted": result.inserted,
        "duplicates": result.duplicates,
        "seed": drawn.seed,
    }
    if drawn.planted_failure and rows:
        truth = demo.truth(drawn)
        summary["planted"] = {
            "skill_name": truth.skill_name,
            "day": truth.day,
            "cause": f"{truth.cause_field} = {truth.cause_value}",
            "error_type": truth.error_type,
        }
    return summary
