"""The `sb` command: finds a command's module and loads nothing else.

Each command lives in `sb_pipelines/commands`. A problem that the user can mend is one line on
stderr and exit code 2.
"""

from __future__ import annotations

import importlib
import sys

import click

from sb_serving import __version__
from sb_serving.errors import SbError

COMMANDS = {
    "try": (
        "sb_pipelines.commands.try_",
        "What your assistant did, on one screen; stores nothing.",
    ),
    "up": ("sb_pipelines.commands.up", "Ingest, materialize, serve, with the Dagster UI."),
    "ingest": ("sb_pipelines.commands.ingest", "Read an assistant's logs into skills.db."),
    "record": ("sb_pipelines.commands.record", "Record one invocation."),
    "expect": ("sb_pipelines.commands.expect", "Say which skills you expect to go together."),
    "refresh": ("sb_pipelines.commands.refresh", "Materialize and publish now."),
    "serve": ("sb_pipelines.commands.serve", "Serve the feed, Prometheus and MCP over HTTP."),
    "mcp": ("sb_pipelines.commands.mcp", "Serve MCP over stdin and stdout."),
    "analyze": ("sb_pipelines.analyze", "Run one analytic on an event file."),
    "export": ("sb_pipelines.commands.export", "A published table as Parquet, CSV or JSON."),
    "predict": ("sb_pipelines.commands.predict", "How likely a run is to complete, and why."),
    "recommend": ("sb_pipelines.commands.recommend", "Skills that would suit a user, and why."),
    "prune": ("sb_pipelines.commands.prune", "Leave only totals of events of long ago."),
    "status": ("sb_pipelines.commands.status", "What is stored, how old, how large."),
    "doctor": ("sb_pipelines.commands.doctor", "Check every part and say what to mend."),
    "demo": ("sb_pipelines.commands.demo", "Fill a database with believable demo data."),
    "migrate": ("sb_pipelines.commands.migrate", "Change the schema version of skills.db."),
}


class _Lazy(click.Group):
    """A group that imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name][0])
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table above, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sb")
def sb() -> None:
    """Analytics for the skills and tools that AI coding assistants run."""


def main() -> None:
    """Run `sb`; the entry point of the installed script."""
    try:
        sb(prog_name="sb")
    except SbError as error:
        click.echo(f"sb: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
