"""`sb recommend`: skills that would suit a user, with the reasons."""

from __future__ import annotations

from pathlib import Path

import click

from sb_pipelines.commands import options
from sb_serving.settings import Settings


@click.command()
@click.argument("user", required=False)
@click.option("--limit", default=5, show_default=True, help="Most skills to list.")
@options.home
@options.db
@options.as_json
def command(
    user: str | None, limit: int, home: Path | None, skills_db: Path | None, as_json: bool
) -> None:
    """Recommend skills that USER, a name or its hash, has not used; you if not given."""
    from sb_serving.answers import recommendations
    from sb_serving.kept import Kept
    from sb_serving.live import Live
    from sb_serving.snapshot import SnapshotHolder

    settings = Settings.load(home=home, skills_db=skills_db)
    live = Live(settings, SnapshotHolder(settings.snapshots))
    name = user or options.local_user(settings)
    found = recommendations.collaborative_recommendations(
        live,
        Kept(recommendations.load_recommender),
        live.user(name),
        limit,
        shown_as=name,
    )
    if as_json:
        options.print_json(found.model_dump())
        return
    click.echo(found.message)
    for one in found.recommendations:
        click.echo(f"  {one.skill_name}: {one.reason}")
