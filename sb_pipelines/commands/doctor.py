"""`sb doctor`: opens every part once and says what to mend."""

from __future__ import annotations

import platform
import sqlite3
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from sb_pipelines.commands import options
from sb_serving import __version__, times
from sb_serving.errors import SbError
from sb_serving.settings import Settings


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was looked at, whether it is well, what was seen, and how long it took."""

    part: str
    ok: bool
    seen: str
    milliseconds: float


@click.command()
@options.home
@options.db
@options.as_json
def command(home: Path | None, skills_db: Path | None, as_json: bool) -> None:
    """Check settings, files, versions and logs; exit code 1 if something needs mending."""
    settings = Settings.load(home=home, skills_db=skills_db)
    findings = [_run(part, check, settings) for part, check in CHECKS.items()]
    if as_json:
        options.print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            mark = "ok  " if finding.ok else "MEND"
            click.echo(
                f"{mark}  {finding.part:<10} {finding.seen}  ({finding.milliseconds:.0f} ms)"
            )
    if not all(finding.ok for finding in findings):
        raise SystemExit(1)


def _run(part: str, check: Callable[[Settings], str], settings: Settings) -> Finding:
    begun = time.perf_counter()
    try:
        seen, ok = check(settings), True
    except SbError as error:
        seen, ok = str(error), False
    return Finding(part, ok, seen, (time.perf_counter() - begun) * 1000)


def _versions(settings: Settings) -> str:
    import duckdb

    return (
        f"sb {__version__}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version},"
        f" DuckDB {duckdb.__version__}, home {settings.home}"
    )


def _identity(settings: Settings) -> str:
    from sb_serving.store import Identity

    Identity.load(settings.identity_key)
    mode = settings.identity_key.stat().st_mode & 0o777
    if mode & 0o077:
        raise SbError(
            f"{settings.identity_key} can be read by others (mode {mode:o})",
            fix=f"Run `chmod 600 {settings.identity_key}`.",
        )
    return f"{settings.identity_key.name} is private"


def _store(settings: Settings) -> str:
    from sb_serving.store import migrate, reader
    from sb_serving.store.connection import LOOK_SECONDS

    connection = reader.connect_readonly(settings.skills_db, wait=LOOK_SECONDS)
    try:
        status = migrate.status(connection, settings.skills_db)
        if status.pending:
            raise SbError(
                f"{settings.skills_db} is at version {status.version}",
                fix=f"Run `sb migrate up --db {settings.skills_db}`.",
            )
        verdict = connection.execute("pragma quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise SbError(f"{settings.skills_db} is damaged: {verdict}", fix="Restore a backup.")
        return f"version {status.version}, {reader.max_id(connection):,} invocations, undamaged"
    finally:
        connection.close()


def _snapshot(settings: Settings) -> str:
    from sb_serving.snapshot import SnapshotHolder

    holder = SnapshotHolder(settings.snapshots)
    try:
        if holder.refused:
            raise SbError(f"refused: {holder.refused[-1]}", fix="Run `sb refresh`.")
        with holder.pin() as snapshot:
            if snapshot is None:
                raise SbError("no snapshot is published", fix="Run `sb refresh`.")
            published = times.to_utc_text(snapshot.manifest.published_at)
            return f"number {snapshot.manifest.number}, published {published}"
    finally:
        holder.close()


def _logs(settings: Settings) -> str:
    projects = settings.claude_dir / "projects"
    files = list(projects.glob("*/*.jsonl"))
    if not files:
        return f"no Claude Code transcripts in {projects}"
    oldest = min(file.stat().st_mtime for file in files)
    days = (time.time() - oldest) / 86_400
    return f"{len(files):,} transcripts in {projects}, the oldest {days:.0f} days old"


CHECKS: dict[str, Callable[[Settings], str]] = {
    "versions": _versions,
    "identity": _identity,
    "skills.db": _store,
    "snapshot": _snapshot,
    "logs": _logs,
}
