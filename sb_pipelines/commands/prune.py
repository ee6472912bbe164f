"""`sb prune`: what the daily housekeeping does with old events, now; or only a look at it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from sb_pipelines.commands import options
from sb_serving import times
from sb_serving.settings import Settings


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be pruned.")
@options.home
@options.db
@options.as_json
def command(dry_run: bool, home: Path | None, skills_db: Path | None, as_json: bool) -> None:
    """Leave only totals of events of more than `keep_events_days` days ago."""
    from sb_pipelines import pruning
    from sb_pipelines.resources import SkillsDb, Snapshots, Warehouse

    settings = Settings.load(home=home, skills_db=skills_db)
    before = pruning.first_kept(settings, times.now())
    files = (
        SkillsDb(path=str(settings.skills_db)),
        Warehouse(database=str(settings.warehouse)),
        Snapshots(folder=str(settings.snapshots), keep=settings.keep_snapshots),
    )
    if dry_run:
        todo = pruning.prunable(*files, before)
        facts = {"before": before, "days": len(todo.days), "rows": todo.rows, "waits": todo.waits}
    else:
        facts = {"before": before} | asdict(pruning.prune(*files, before))
    if as_json:
        options.print_json(facts | {"before": before.isoformat()})
        return
    verb = "would be pruned" if dry_run else "pruned"
    click.echo(f"{facts['rows']:,} events of {facts['days']:,} days before {before} {verb}")
    if facts["waits"]:
        click.echo(f"others wait: {facts['waits']}")
    if facts["rows"]:
        click.echo(
            "Totals, hours, sessions and what users used stay; a training of the predictor,"
            " `sb analyze` and causes of anomalies know single events only."
        )
