"""`sb export`: a published table as a file."""

from __future__ import annotations

from pathlib import Path

import click

from sb_pipelines.commands import options
from sb_serving.settings import Settings


@click.command()
@click.argument("table", required=False)
@click.option("--out", type=click.Path(path_type=Path), help="The file; - is the standard output.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["parquet", "csv", "json", "ndjson"]),
    help="Default: what the suffix of --out says, else parquet.",
)
@options.home
def command(table: str | None, out: Path | None, form: str | None, home: Path | None) -> None:
    """Write TABLE of the newest snapshot to a file; without TABLE, list what there is."""
    from sb_pipelines import export

    folder = Settings.load(home=home).snapshots
    if table is None:
        for name, rows in sorted(export.tables(folder).items()):
            click.echo(f"{name:<28} {rows:>12,} rows")
        return
    done = export.export(folder, table, out, form)
    click.echo(
        f"wrote {done.rows:,} rows of snapshot {done.snapshot_number} to {done.path}", err=True
    )
