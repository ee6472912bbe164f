"""`sb migrate`: the schema version of `skills.db`, up, down and back."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import click

from sb_pipelines.commands import options
from sb_serving.errors import SbError
from sb_serving.settings import Settings
from sb_serving.store import migrate, restore
from sb_serving.store.connection import LOOK_SECONDS, connect, connect_readonly


@click.group()
def command() -> None:
    """Change the schema version of skills.db; a verified backup is made before each change."""


@command.command()
@options.home
@options.db
@options.as_json
def status(home: Path | None, skills_db: Path | None, as_json: bool) -> None:
    """Say which versions are applied, which are pending, and which backups there are."""
    path = Settings.load(home=home, skills_db=skills_db).skills_db
    with closing(connect_readonly(path, wait=LOOK_SECONDS)) as connection:
        current = migrate.status(connection, path)
    backups = restore.listed(path)
    if as_json:
        options.print_json(asdict(current) | {"backups": [asdict(backup) for backup in backups]})
        return
    for stem in current.applied:
        click.echo(f"applied  {stem}")
    for stem in current.pending:
        click.echo(f"pending  {stem}")
    for backup in backups:
        version = "unreadable" if backup.version is None else f"V{backup.version}"
        click.echo(f"backup   {backup.path}  {version}, {backup.bytes / 1e6:,.1f} MB")


@command.command()
@click.option("--to", "target", default=migrate.LATEST, show_default=True, help="Highest version.")
@click.option("--dry-run", is_flag=True, help="Only say what would be applied.")
@click.option(
    "--from",
    "backup",
    type=click.Path(path_type=Path),
    help="A backup made before a way down: its companions, experiments and taxonomy come back.",
)
@options.home
@options.db
def up(
    target: int, dry_run: bool, backup: Path | None, home: Path | None, skills_db: Path | None
) -> None:
    """Apply the pending versions."""
    path = Settings.load(home=home, skills_db=skills_db).skills_db
    if backup is not None:
        _check_source(backup, target)
    with closing(_existing(path)) as connection:
        done = migrate.up(connection, path, target=target, dry_run=dry_run)
        _report("would apply" if dry_run else "applied", done)
        if backup is None or dry_run:
            return
        returned = restore.companions(connection, path, backup)
    click.echo(
        f"returned {returned.companions:,} companions, {returned.offsets:,} reading positions,"
        f" {returned.authored:,} rows of experiments and taxonomy"
    )
    if returned.without:
        click.echo(
            f"{returned.without:,} invocations have no companion: the backup has none either"
        )


@command.command()
@click.option("--steps", default=1, show_default=True, type=click.IntRange(min=1))
@click.option("--dry-run", is_flag=True, help="Only say what would be undone.")
@options.home
@options.db
def down(steps: int, dry_run: bool, home: Path | None, skills_db: Path | None) -> None:
    """Undo the newest versions; recorded rows stay."""
    path = Settings.load(home=home, skills_db=skills_db).skills_db
    with closing(_existing(path)) as connection:
        done = migrate.down(connection, path, steps=steps, dry_run=dry_run)
    _report("would undo" if dry_run else "undone", done)


@command.command()
@options.home
@options.db
def backup(home: Path | None, skills_db: Path | None) -> None:
    """Copy skills.db beside itself and verify the copy."""
    path = Settings.load(home=home, skills_db=skills_db).skills_db
    with closing(connect_readonly(path)) as connection:
        click.echo(migrate.backup(connection, path))


@command.command("restore")
@click.argument("backup", type=click.Path(path_type=Path))
@options.home
@options.db
def restore_(backup: Path, home: Path | None, skills_db: Path | None) -> None:
    """Put BACKUP in the place of skills.db, which is kept as another backup."""
    path = Settings.load(home=home, skills_db=skills_db).skills_db
    kept = restore.whole_file(path, backup)
    click.echo(f"restored {backup}")
    if kept is not None:
        click.echo(f"kept     {kept}")


def _existing(path: Path) -> sqlite3.Connection:
    connect_readonly(path).close()  # a wrong path is an error here, not a new file
    return connect(path)


def _check_source(backup: Path, target: int) -> None:
    """Refuse a backup that nothing can come back from, before anything is changed."""
    if target < migrate.LATEST:
        raise SbError(
            f"--from {backup} with --to {target}: companions need version {migrate.LATEST}",
            fix="Leave --to out.",
        )
    restore.check_source(backup)


def _report(verb: str, stems: list[str]) -> None:
    for stem in stems:
        click.echo(f"{verb} {stem}")
    if not stems:
        click.echo("nothing to do")
