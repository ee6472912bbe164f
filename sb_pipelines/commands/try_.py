"""`sb try`: what the assistant did, on one screen, before any set-up.

Reads transcripts into memory, condenses them with `overview`, prints. Writes nothing, not even a
key file: ids are hashed under a key that is forgotten at the end.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import click

from sb_pipelines.commands import options
from sb_serving import times
from sb_serving.errors import SbError
from sb_serving.events import Invocation
from sb_serving.overview import Failing, Overview, overview
from sb_serving.settings import Settings

DEMO_ROWS = 20_000
NOT_ENOUGH = "not enough data"


@click.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("--demo", is_flag=True, help="Show demo data instead.")
@options.home
@options.as_json
def command(folder: Path | None, demo: bool, home: Path | None, as_json: bool) -> None:
    """Show what your assistant did, from the transcripts below FOLDER; stores nothing."""
    settings = Settings.load(home=home)
    begun = time.perf_counter()
    if demo:
        found, expiring = overview(_demo()), 0
    else:
        found, expiring = _transcripts(settings, folder or settings.claude_dir / "projects")
    if as_json:
        options.print_json(asdict(found) | {"expiring": expiring})
    else:
        _print(found, expiring, time.perf_counter() - begun)


def _demo() -> Iterable[Invocation]:
    from sb_serving import demo

    return demo.invocations(demo.DemoPlan(n=DEMO_ROWS, seed=1, end=times.now()))


def _transcripts(settings: Settings, folder: Path) -> tuple[Overview, int]:
    from sb_serving.ingest import Summary, parse_tree
    from sb_serving.store import Identity

    if not folder.exists():
        raise SbError(
            f"there are no transcripts at {folder}",
            fix="Name their folder (`sb try FOLDER`), or look at `sb try --demo`.",
        )
    summary = Summary()
    identity = Identity(secrets.token_bytes(32))
    rows = parse_tree(folder, identity, settings.user, times.now(), summary)
    return overview(rows, summary.listed), summary.expiring


def _print(found: Overview, expiring: int, seconds: float) -> None:
    if not found.invocations:
        click.echo("Nothing ran yet: no call was found. `sb try --demo` shows how this looks.")
        return
    assert found.first_at is not None
    assert found.last_at is not None
    click.echo(
        f"Found {found.sessions:,} sessions, {found.tool_calls:,} tool calls,"
        f" {found.skill_runs:,} skill runs, {found.skills:,} skills"
        f"  ({found.first_at[:10]} to {found.last_at[:10]}, {seconds:.1f} s)"
    )
    used = [f"{use.skill_name}  {use.n:,} runs" for use in found.top]
    _block("Ran most, without plain tools", used)
    _block(
        f"Fails most since {found.failing_from}",
        [_failing_line(failing) for failing in found.failing],
    )
    waits = [
        f"{wait.skill_name}  median {_seconds(wait.p50)}, 95th percentile {_seconds(wait.p95)}"
        f" over {wait.n:,} calls, waiting for your approval included"
        for wait in found.waiting
    ]
    _block("Waits on you", waits)
    if found.listed:
        never = f"{len(found.never_used)} of {found.listed} listed skills"
        names = ", ".join(found.never_used[:8]) + (" ..." if len(found.never_used) > 8 else "")
        _block("Never used", [f"{never}: {names}" if names else never])
    else:
        _block("Never used", [])
    if expiring:
        _block(
            "History at risk",
            [
                f"{expiring:,} transcripts are deleted by Claude Code within 3 days;"
                " keep their calls with `sb ingest claude-code`"
            ],
        )


def _block(title: str, lines: list[str]) -> None:
    click.echo(f"\n{title}")
    for line in lines or [NOT_ENOUGH]:
        click.echo(f"  {line}")


def _failing_line(failing: Failing) -> str:
    rate = failing.failed / failing.decided
    line = (
        f"{failing.skill_name}  {failing.failed:,} of {failing.decided:,} failed"
        f" ({rate:.0%}, 95 % interval {failing.low:.0%} to {failing.high:.0%})"
    )
    if failing.error_type:
        line += f", mostly {failing.error_type} ({failing.error_n:,})"
    if failing.failed == failing.decided:
        line += ", ever since its first run"
    if failing.since:
        line += f", since {failing.since} (p = {failing.since_p:.2g})"
    if failing.projects > 1:
        line += f", in {failing.projects} projects"
    return line


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 120 else f"{value / 60:.0f} min"
