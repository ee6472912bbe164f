"""`sb mcp`: the MCP server over stdin and stdout, as an assistant starts it."""

from __future__ import annotations

from pathlib import Path

import click

from sb_pipelines.commands import options
from sb_serving.settings import Settings


@click.command()
@options.home
@options.db
def command(home: Path | None, skills_db: Path | None) -> None:
    """Answer an assistant's questions over stdin and stdout."""
    from sb_serving.faces.mcp import run_stdio

    run_stdio(Settings.load(home=home, skills_db=skills_db))
