"""`sb predict`: how likely a run is to complete, with the reasons."""

from __future__ import annotations

from pathlib import Path

import click

from sb_pipelines.commands import options
from sb_serving.settings import Settings

REASONS = 5
"""Reasons printed; `--json` has all."""


@click.command()
@click.argument("skill_name", metavar="SKILL")
@click.option("--phase", help="setup execution verification deployment cleanup rollback.")
@click.option("--session", help="Session that it will run in.")
@click.option("--user", help="A user name or its hash; the settings' user if not given.")
@click.option("--agent", help="The assistant, as recorded.")
@click.option("--agent-version", help="Its version.")
@click.option("--model", help="The language model, as recorded.")
@options.home
@options.db
@options.as_json
def command(
    skill_name: str,
    phase: str | None,
    session: str | None,
    user: str | None,
    agent: str | None,
    agent_version: str | None,
    model: str | None,
    home: Path | None,
    skills_db: Path | None,
    as_json: bool,
) -> None:
    """Say how likely SKILL is to complete if it starts now, and why."""
    from sb_serving import times
    from sb_serving.answers import success
    from sb_serving.live import Live
    from sb_serving.snapshot import SnapshotHolder

    settings = Settings.load(home=home, skills_db=skills_db)
    live = Live(settings, SnapshotHolder(settings.snapshots))
    question = success.asked(
        skill_name,
        times.now(),
        session_id=session,
        user_id=live.user(user or options.local_user(settings)),
        workflow_phase=phase,
        agent=agent,
        agent_version=agent_version,
        model=model,
    )
    found = success.success_prediction(live, success.Memory(), question)
    if as_json:
        options.print_json(found.model_dump())
        return
    click.echo(found.message)
    for reason in found.reasons[:REASONS]:
        click.echo(f"  {reason.interpretation}")
