"""`sb ingest`: an assistant's logs into `skills.db`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sb_pipelines.commands import options
from sb_serving import times
from sb_serving.settings import Settings
from sb_serving.store import Identity, Store

if TYPE_CHECKING:
    from sb_serving.ingest import Summary
    from sb_serving.store.other_versions import Summary as OtherSummary


@click.group()
def command() -> None:
    """Read logs into skills.db; running it again adds only what is new."""


@command.command("claude-code")
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@options.home
@options.db
@options.as_json
def claude_code(
    folder: Path | None, home: Path | None, skills_db: Path | None, as_json: bool
) -> None:
    """Read Claude Code transcripts below FOLDER (default: its own projects folder)."""
    settings = Settings.load(home=home, skills_db=skills_db)
    summary = run(settings, folder or settings.claude_dir / "projects", progress=not as_json)
    if as_json:
        options.print_json(options.shallow(summary))
    else:
        print_summary(summary)


@command.command("session-buddy")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@options.home
@options.db
@options.as_json
def session_buddy(
    files: tuple[Path, ...], home: Path | None, skills_db: Path | None, as_json: bool
) -> None:
    """Read Session-Buddy's own skills.db FILES, of any version; they are not changed."""
    from sb_serving.sources import session_buddy as source
    from sb_serving.store import other_versions

    settings = Settings.load(home=home, skills_db=skills_db)
    identity = Identity.load(settings.identity_key)
    summary = other_versions.Summary()
    with Store.open(settings.skills_db, create=True, synchronous=settings.synchronous) as store:
        for file in files:
            other_versions.bring_over(store, file, source.invocation, identity.user, summary)
    if as_json:
        options.print_json(options.shallow(summary))
    else:
        print_other(summary)


def print_other(summary: OtherSummary) -> None:
    """What came from other files, as a few lines."""
    for name, version in summary.versions.items():
        click.echo(f"{name}: {version or 'says no version'}")
    click.echo(
        f"{summary.rows:,} invocations read, {summary.inserted:,} added,"
        f" {summary.duplicates:,} known already"
    )
    ranked = sorted(summary.by_outcome.items(), key=lambda item: -item[1])
    parts = ", ".join(f"{name} {n:,}" for name, n in ranked)
    click.echo(f"by outcome: {parts or 'none'}")
    for table, count in summary.authored.items():
        if count:
            click.echo(f"{count:,} rows added to {table}")
    for name, count in summary.left_out.items():
        click.echo(f"{count:,} rows came without their {name}, which was not valid")
    if summary.pruned:
        click.echo(f"{summary.pruned:,} left out: events of their days were pruned")
    if summary.future:
        click.echo(f"{summary.future:,} dated in the future: a clock is wrong")
    for message in (*summary.not_read, *summary.refused):
        click.echo(f"not read: {message}", err=True)


def run(settings: Settings, folder: Path, *, progress: bool) -> Summary:
    """Ingest a folder of transcripts, with a progress bar if asked for."""
    from sb_serving.ingest import ingest_claude_code

    identity = Identity.load(settings.identity_key)
    with Store.open(settings.skills_db, create=True, synchronous=settings.synchronous) as store:
        arguments: dict[str, Any] = {
            "identity": identity,
            "user": settings.user,
            "now": times.now(),
        }
        if not progress:
            return ingest_claude_code(store, folder, **arguments)
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

        with Progress(
            TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn()
        ) as bar:
            task = bar.add_task("reading", total=None)

            def show(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total)

            return ingest_claude_code(store, folder, on_progress=show, **arguments)


def one_line(summary: Summary) -> str:
    """The summary in one line."""
    return (
        f"{summary.files:,} files, {summary.lines:,} lines ({summary.bad_lines:,} bad),"
        f" {summary.inserted:,} invocations added, {summary.duplicates:,} known already"
    )


def print_summary(summary: Summary) -> None:
    """The summary as a few lines."""
    click.echo(one_line(summary))
    for title, counts in (("outcome", summary.by_outcome), ("kind", summary.by_kind)):
        ranked = sorted(counts.items(), key=lambda item: -item[1])
        parts = ", ".join(f"{name} {n:,}" for name, n in ranked)
        click.echo(f"by {title}: {parts or 'none'}")
    notes = {
        "built-in commands left out": summary.builtins,
        "still open, completed by a later run": summary.held_open,
        "left out, no readable time around them": summary.undated,
        "left out: events of their days were pruned": summary.pruned,
        "dated in the future: a clock is wrong": summary.future,
        "transcripts that Claude Code deletes within 3 days": summary.expiring,
    }
    for what, count in notes.items():
        if count:
            click.echo(f"{count:,} {what}")
    for message in (*summary.unreadable, *summary.refused):
        click.echo(f"not read: {message}", err=True)
