"""`sb up`: the whole house with one command.

Local logs in (or demo data where there are none), everything materialized and published, then the
serving process and Dagster as children, until Ctrl-C. Processes are owned by `supervisor`.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from sb_pipelines.commands import options
from sb_serving import times
from sb_serving.errors import SbError
from sb_serving.events import Invocation
from sb_serving.settings import Settings
from sb_serving.store import Store

if TYPE_CHECKING:
    from sb_pipelines.supervisor import Family

DEMO_ROWS = 20_000
TICK_SECONDS = 1.0
INGEST_SECONDS = 10.0
"""How often the local logs are looked at for something new."""
DEMO_SECONDS = 2.0
"""How often one more demo invocation is recorded."""
READY_SECONDS = 120.0


@click.command()
@click.option("--demo", is_flag=True, help="Use demo data even where local logs are found.")
@click.option("--no-dagster", is_flag=True, help="Serve only; the Dagster UI stays off.")
@click.option("--feed", help="Address of the feed (SB_FEED).")
@click.option("--metrics", help="Address of the Prometheus endpoint (SB_METRICS).")
@click.option("--http", help="Address of MCP, health and readiness (SB_HTTP).")
@click.option("--dagster-port", type=int, help="Port of the Dagster UI (SB_DAGSTER_PORT).")
@options.home
@options.db
def command(
    demo: bool, no_dagster: bool, home: Path | None, skills_db: Path | None, **addresses: str | int
) -> None:
    """Ingest, materialize, publish and serve until Ctrl-C."""
    settings = Settings.load(home=home, skills_db=skills_db, **addresses)
    signal.signal(signal.SIGTERM, _as_interrupt)
    # A shell starts background jobs with SIGINT ignored, and children would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run(settings, force_demo=demo, with_dagster=not no_dagster)
    except KeyboardInterrupt:
        click.echo("\nstopped; no process is left running")


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def run(settings: Settings, *, force_demo: bool, with_dagster: bool) -> None:
    """Do everything that `sb up` promises; returns only by an exception."""
    from sb_pipelines.launcher import prepare_home
    from sb_pipelines.refresh import refresh
    from sb_pipelines.supervisor import Family

    _check_ports(settings, with_dagster)
    news = _fill(settings, force_demo)
    click.echo("materializing and publishing ...")
    if with_dagster:
        # Before the first run: without it that run would not show in the UI.
        prepare_home(settings)
    result = refresh(settings)
    click.echo(f"published snapshot {result.snapshot_number}")
    # The children read settings from the environment only, so that they see what we see.
    env = {**os.environ, **settings.as_environment()}
    with Family() as family:
        logs = settings.home / "logs"
        sb = [sys.executable, "-m", "sb_pipelines.cli"]
        family.start("serve", [*sb, "serve"], env, logs / "serve.log")
        if with_dagster:
            from sb_pipelines.launcher import dagster_command

            argv, dagster_env = dagster_command(settings)
            family.start("dagster", argv, dagster_env, logs / "dagster.log")
        _wait_ready(family, settings, with_dagster, logs)
        _print_urls(settings, with_dagster)
        _watch(family, settings, news, logs)


def _check_ports(settings: Settings, with_dagster: bool) -> None:
    wanted = {"feed": settings.feed, "metrics": settings.metrics, "http": settings.http}
    if with_dagster:
        wanted["dagster_port"] = f"127.0.0.1:{settings.dagster_port}"
    for name, address in wanted.items():
        host, _, port = address.rpartition(":")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, int(port)))
            except OSError as error:
                flag = name.replace("_", "-")
                raise SbError(
                    f"{name} = {address} cannot be used ({error.strerror})",
                    fix=f"End what runs there, or choose another with --{flag}.",
                ) from None


@dataclasses.dataclass(frozen=True, slots=True)
class News:
    """What to call, and how often, for something new while everything runs."""

    look: Callable[[], object]
    every_seconds: float


def _fill(settings: Settings, force_demo: bool) -> News | None:
    """Bring data in; says how more of it is got later."""
    from sb_pipelines.commands import demo, ingest

    projects = settings.claude_dir / "projects"
    if not force_demo and any(projects.glob("*/*.jsonl")):
        click.echo(f"reading Claude Code's transcripts in {projects}")
        summary = ingest.run(settings, projects, progress=sys.stderr.isatty())
        click.echo(ingest.one_line(summary))
        return News(lambda: ingest.run(settings, projects, progress=False), INGEST_SECONDS)
    with Store.open(settings.skills_db, create=True) as store:
        empty = store.is_empty()
    if not (empty or force_demo):
        return None
    why = "as asked" if force_demo else f"no transcripts in {projects}"
    click.echo(f"using demo data ({why})")
    demo.fill(settings, rows=DEMO_ROWS, seed=1, end=times.now(), days=90)
    return News(_demo_trickle(settings), DEMO_SECONDS)


def _demo_trickle(settings: Settings) -> Callable[[], object]:
    """One more demo invocation per call, as if somebody were working now."""
    from sb_serving import demo

    def drawn() -> Iterator[Invocation]:
        seed = time.time_ns()
        while True:
            seed += 1
            yield from demo.invocations(demo.DemoPlan(n=500, seed=seed, end=times.now(), days=2))

    source = drawn()

    def step() -> None:
        at = times.now_text()
        invocation = dataclasses.replace(next(source), invoked_at=at, duration_seconds=None)
        with Store.open(settings.skills_db) as store:
            store.record(dataclasses.replace(invocation, duration_source=None))

    return step


def _wait_ready(family: Family, settings: Settings, with_dagster: bool, logs: Path) -> None:
    waiting = {"serve": f"http://{settings.http}/healthz"}
    if with_dagster:
        waiting["dagster"] = f"http://127.0.0.1:{settings.dagster_port}/server_info"
    deadline = time.monotonic() + READY_SECONDS
    for name, url in waiting.items():
        while not _answers(url):
            if (ended := family.ended()) or time.monotonic() > deadline:
                raise SbError(
                    f"{ended or name} did not come up", fix=f"See {logs / (ended or name)}.log."
                )
            time.sleep(0.3)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False


def _print_urls(settings: Settings, with_dagster: bool) -> None:
    click.echo(f"page and health   http://{settings.http}/")
    click.echo(f"MCP over HTTP     http://{settings.http}/mcp")
    click.echo(f"live feed         ws://{settings.feed}/")
    click.echo(f"Prometheus        http://{settings.metrics}/metrics")
    if with_dagster:
        click.echo(f"Dagster UI        http://127.0.0.1:{settings.dagster_port}/")
    click.echo("Ctrl-C stops everything.")


def _watch(family: Family, settings: Settings, news: News | None, logs: Path) -> None:
    """Look for new data and print the moving numbers until a child ends or Ctrl-C."""
    from sb_serving.live import Live
    from sb_serving.snapshot import SnapshotHolder

    live = Live(settings, SnapshotHolder(settings.snapshots))
    on_terminal = sys.stdout.isatty()
    next_look = next_line = 0.0
    while (ended := family.ended()) is None:
        now = time.monotonic()
        if news is not None and now >= next_look:
            news.look()
            next_look = now + news.every_seconds
        frame = live.tick(times.now())
        line = (
            f"{frame.at[11:19]}  {frame.total_invocations:,} invocations"
            f"  {sum(skill.n for skill in frame.hour):,} in the last hour"
            f"  {frame.active_sessions:,} active sessions  snapshot {frame.snapshot_number}"
        )
        if on_terminal:
            click.echo(f"\r{line}   ", nl=False)
        elif now >= next_line:
            click.echo(line)
            next_line = now + 30
        time.sleep(TICK_SECONDS)
    raise SbError(f"{ended} ended by itself", fix=f"See {logs / ended}.log.")
