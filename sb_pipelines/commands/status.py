"""`sb status`: what is stored, how old it is, how large the files are, what will be removed."""

from __future__ import annotations

import time
from contextlib import closing
from datetime import datetime, timedelta
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
    """Say what is stored, how far it is published, how large it is, and what will be removed."""
    facts = collect(Settings.load(home=home, skills_db=skills_db))
    if as_json:
        options.print_json(facts)
        return
    log, snapshot = facts["skills_db"], facts["snapshot"]
    click.echo(
        f"skills.db    {log['invocations']:,} invocations, newest {log['last_event_at']}"
        f"{_ago(log['last_event_age_seconds'])}"
    )
    if snapshot:
        click.echo(
            f"snapshot     {snapshot['number']}, published {snapshot['published_at']}"
            f"{_ago(snapshot['age_seconds'])}, {snapshot['behind']:,} invocations behind"
        )
        for reason in snapshot["refused"]:
            click.echo(f"             refused: {reason}")
    else:
        click.echo("snapshot     none yet; make one with `sb refresh`")
    if log["pruned_through"]:
        click.echo(
            f"pruned       {log['pruned_invocations']:,} invocations up to {log['pruned_through']}"
        )
    for name, size in facts["bytes"].items():
        click.echo(f"{name:<12} {size / 1e6:,.1f} MB")
    for name, what in facts["to_be_removed"].items():
        click.echo(f"to go        {name}: {what}")


def collect(settings: Settings) -> dict[str, Any]:
    """Everything that the command prints, as plain values.

    Raises:
        SbError: There is no database, or it stayed locked.
    """
    from sb_serving.snapshot import SnapshotHolder
    from sb_serving.store import backups, pruning, reader, retention
    from sb_serving.store.connection import LOOK_SECONDS, explained

    now = times.now()
    path = settings.skills_db
    merged_before = (now - timedelta(days=settings.keep_hours_days)).date()
    pruned_before = (
        (now - timedelta(days=settings.keep_events_days)).date()
        if settings.keep_events_days
        else None
    )
    with (
        closing(reader.connect_readonly(path, wait=LOOK_SECONDS)) as connection,
        explained(path, LOOK_SECONDS),
    ):
        newest, last = connection.execute(
            "select coalesce(max(id), 0), max(invoked_at) from skill_invocation"
        ).fetchone()
        rows = connection.execute("select count(*) from skill_invocation").fetchone()[0]
        hours = retention.hours_to_merge(connection, merged_before)
        pruned = pruning.pruned_days(connection)
        old_rows, old_days = (
            pruning.days_before(connection, pruned_before) if pruned_before else (0, 0)
        )
    holder = SnapshotHolder(settings.snapshots)
    with holder.pin() as pinned:
        snapshot = pinned and {
            "number": pinned.manifest.number,
            "published_at": times.to_utc_text(pinned.manifest.published_at),
            "age_seconds": _age(pinned.manifest.published_at, now),
            "watermark_id": pinned.manifest.watermark_id,
            "behind": newest - pinned.manifest.watermark_id,
            "refused": [str(reason) for reason in holder.refused],
        }
    holder.close()
    snapshots = sorted(settings.snapshots.glob("*.duckdb"))
    damaged = settings.warehouse.with_name(settings.warehouse.name + ".damaged")
    return {
        "home": str(settings.home),
        "skills_db": {
            "path": str(path),
            "invocations": rows,
            "last_id": newest,
            "last_event_at": last,
            "last_event_age_seconds": _age(last, now),
            "pruned_invocations": sum(day.n for day in pruned),
            "pruned_through": pruned[-1].day if pruned else None,
        },
        "snapshot": snapshot,
        "bytes": {
            "skills.db": _size(path, *_beside(path)),
            "backups": _size(*backups.found(path)),
            "warehouse": _size(settings.warehouse, damaged),
            "snapshots": _size(*snapshots),
            "dagster": _size(*settings.dagster_home.rglob("*")),
        },
        "to_be_removed": {
            f"hours before {merged_before}, which become days": f"{hours:,} rows",
            f"runs of more than {settings.keep_runs_days} days ago": _old_runs(settings),
            f"all but the newest {settings.keep_snapshots} snapshots": max(
                len(snapshots) - settings.keep_snapshots, 0
            ),
            **(
                {
                    f"events before {pruned_before}, once published, which become totals": (
                        f"{old_rows:,} rows of {old_days:,} days, at most about"
                        f" {_size(path) * old_rows / max(rows, 1) / 1e6:,.1f} MB"
                    )
                }
                if pruned_before
                else {}
            ),
        },
    }


def _old_runs(settings: Settings) -> int:
    """Runs that ended before the limit, by their files: loading Dagster to ask takes seconds."""
    oldest = time.time() - settings.keep_runs_days * 86_400
    files = (settings.dagster_home / "history" / "runs").glob("*-*.db")
    return sum(path.stat().st_mtime < oldest for path in files)


def _age(text: str | None, now: datetime) -> float | None:
    """Seconds since a time; None for none, or one that cannot be read."""
    try:
        return (
            None
            if text is None
            else (now - times.from_text(times.to_utc_text(text))).total_seconds()
        )
    except ValueError:
        return None


def _ago(seconds: float | None) -> str:
    if seconds is None:
        return ""
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f" ({seconds / length:.0f} {unit} ago)"
    return f" ({seconds:.0f} s ago)"


def _beside(path: Path) -> list[Path]:
    return [path.with_name(path.name + suffix) for suffix in ("-wal", "-shm")]


def _size(*paths: Path) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())
