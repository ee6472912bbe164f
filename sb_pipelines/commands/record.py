"""`sb record`: one invocation into `skills.db`, from a shell or a hook."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from sb_pipelines.commands import options
from sb_serving import times
from sb_serving.events import KINDS, OUTCOMES, PHASES, Invocation
from sb_serving.settings import Settings
from sb_serving.store import Identity, Store


@click.command()
@click.argument("skill_name")
@click.option("--session", "session_id", required=True, help="Session id.")
@click.option("--outcome", type=click.Choice(OUTCOMES), default="completed", show_default=True)
@click.option("--kind", type=click.Choice(KINDS), default="skill", show_default=True)
@click.option("--duration", "duration_seconds", type=float, help="Seconds.")
@click.option("--error-type", help="A short class such as exit_1; never the error's text.")
@click.option("--phase", "workflow_phase", type=click.Choice(PHASES), help="Workflow phase.")
@click.option("--at", "invoked_at", help="Start, ISO 8601; the current time if not given.")
@click.option("--event-id", help="The source's own id; a copy of it is dropped.")
@click.option("--project", type=click.Path(path_type=Path), help="A folder; stored hashed.")
@click.option("--user", help="A user name; stored hashed. The login name if not given.")
@options.home
@options.db
@options.as_json
def command(
    skill_name: str,
    invoked_at: str | None,
    project: Path | None,
    user: str | None,
    home: Path | None,
    skills_db: Path | None,
    as_json: bool,
    **fields: str | float | None,
) -> None:
    """Record one invocation of SKILL_NAME; exits when it is committed."""
    settings = Settings.load(home=home, skills_db=skills_db, user=user)
    identity = Identity.load(settings.identity_key)
    given = {name: value for name, value in fields.items() if value is not None}
    invocation = Invocation(
        skill_name=skill_name,
        invoked_at=invoked_at or times.now_text(),
        source="cli",
        user_id=identity.user(settings.user),
        project_id=identity.project(str((project or Path.cwd()).absolute())),
        duration_source="reported" if "duration_seconds" in given else None,
        **given,  # type: ignore[arg-type]
    )
    with Store.open(settings.skills_db, create=True, synchronous=settings.synchronous) as store:
        result = store.record(invocation)
    if as_json:
        options.print_json(asdict(result))
    elif result.duplicate:
        click.echo("already recorded")
    else:
        click.echo(f"recorded {result.id}")
