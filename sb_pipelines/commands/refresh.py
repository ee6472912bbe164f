"""`sb refresh`: materialize and publish now, in this process."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from sb_pipelines.commands import options
from sb_serving.settings import Settings


@click.command()
@click.option("--models", is_flag=True, help="Compute the slow tables (trends, clusters, ...) too.")
@click.option("--full", is_flag=True, help="Compute everything anew, from the first row on.")
@options.home
@options.db
@options.as_json
def command(
    models: bool, full: bool, home: Path | None, skills_db: Path | None, as_json: bool
) -> None:
    """Bring the warehouse up to the newest row and publish a snapshot."""
    from sb_pipelines.refresh import refresh

    result = refresh(Settings.load(home=home, skills_db=skills_db), models=models, full=full)
    if as_json:
        options.print_json(asdict(result))
    else:
        click.echo(
            f"published snapshot {result.snapshot_number}, up to invocation {result.watermark_id:,}"
        )
