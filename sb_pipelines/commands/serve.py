"""`sb serve`: the feed, Prometheus and MCP over HTTP in one process."""

from __future__ import annotations

from pathlib import Path

import click

from sb_pipelines.commands import options
from sb_serving.settings import Settings

LISTENERS = ("feed", "metrics", "http")


@click.command()
@click.option("--feed", help="Address of the feed (SB_FEED).")
@click.option("--metrics", help="Address of the Prometheus endpoint (SB_METRICS).")
@click.option("--http", help="Address of MCP, health and readiness (SB_HTTP).")
@click.option("--only", multiple=True, type=click.Choice(LISTENERS), help="Start only this one.")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    help="File with the bearer token; required off loopback (SB_TOKEN_FILE).",
)
@options.home
@options.db
def command(
    only: tuple[str, ...], home: Path | None, skills_db: Path | None, **flags: str | Path | None
) -> None:
    """Serve until Ctrl-C."""
    from sb_serving.app import serve

    settings = Settings.load(home=home, skills_db=skills_db, **flags)
    serve(settings, only=only or None)
