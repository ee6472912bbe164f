"""`sb status`: what is stored, how old it is, how large the files are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sb_pipelines.commands import options
from sb_serving import times
from sb_serving.settings import Settings


@click.command()
@options.home
@options.db
@options.as_json
def command(home: Path | None, skills_db: Path | None, as_json: bool) -> None:
    """Say what is stored, how far it is published, and how large the files are."""
    facts = collect(Settings.load(home=home, skills_db=skills_db))
    if as_json:
        options.print_json(facts)
        return
    log, snapshot = facts["skills_db"], facts["snapshot"]
    click.echo(f"skills.db    {log['invocations']:,} invocations, newest {log['last_event_at']}")
    if snapshot:
        click.echo(
            f"snapshot     {snapshot['number']}, published {snapshot['published_at']},"
            f" {snapshot['behind']:,} invocations behind"
        )
    else:
        click.echo("snapshot     none yet; make one with `sb refresh`")
    for name, size in facts["bytes"].items():
        click.echo(f"{name:<12} {size / 1e6:,.1f} MB")


def collect(settings: Settings) -> dict[str, Any]:
    """Everything that the command prints, as plain values.

    Raises:
        SbError: There is no database.
    """
    from sb_serving.snapshot import SnapshotHolder
    from sb_serving.store import reader
    from sb_serving.store.connection import LOOK_SECONDS

    connection = reader.connect_readonly(settings.skills_db, wait=LOOK_SECONDS)
    try:
        newest, last = connection.execute(
            "select coalesce(max(id), 0), max(invoked_at) from skill_invocation"
        ).fetchone()
        rows = connection.execute("select count(*) from skill_invocation").fetchone()[0]
    finally:
        connection.close()
    holder = SnapshotHolder(settings.snapshots)
    with holder.pin() as pinned:
        snapshot = pinned and {
            "number": pinned.manifest.number,
            "published_at": times.to_utc_text(pinned.manifest.published_at),
            "watermark_id": pinned.manifest.watermark_id,
            "behind": newest - pinned.manifest.watermark_id,
            "refused": [str(reason) for reason in holder.refused],
        }
    holder.close()
    return {
        "home": str(settings.home),
        "skills_db": {
            "path": str(settings.skills_db),
            "invocations": rows,
            "last_id": newest,
            "last_event_at": last,
        },
        "snapshot": snapshot,
        "bytes": {
            "skills.db": _size(settings.skills_db, *_beside(settings.skills_db)),
            "warehouse": _size(settings.warehouse),
            "snapshots": _size(*settings.snapshots.glob("*.duckdb")),
            "dagster": _size(*settings.dagster_home.rglob("*")),
        },
    }


def _beside(path: Path) -> list[Path]:
    return [path.with_name(path.name + suffix) for suffix in ("-wal", "-shm")]


def _size(*paths: Path) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())
