"""`sb expect`: which skills somebody expects to go together."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import click

from sb_pipelines.commands import options
from sb_serving.settings import Settings
from sb_serving.store import Store, expected
from sb_serving.store.connection import connect_readonly


@click.command()
@click.argument("skills", nargs=-1, metavar="[SKILL_A SKILL_B]")
@click.option("--lift", type=float, help="The lift that you expect, above 1.")
@click.option("--remove", is_flag=True, help="Expect the pair no longer.")
@options.home
@options.db
@options.as_json
def command(
    skills: tuple[str, ...],
    lift: float | None,
    remove: bool,
    home: Path | None,
    skills_db: Path | None,
    as_json: bool,
) -> None:
    """Say that two skills go together; without a pair, list what is expected.

    `sb refresh --models` compares the pairs with what was measured.
    """
    if len(skills) not in (0, 2) or (not skills and (remove or lift is not None)):
        raise click.UsageError("name two skills, or none to list the pairs")
    if remove and lift is not None:
        raise click.UsageError("--remove takes no --lift")
    settings = Settings.load(home=home, skills_db=skills_db)
    if not skills:
        with closing(connect_readonly(settings.skills_db)) as connection:
            rows = expected.listed(connection)
        if as_json:
            options.print_json([asdict(row) for row in rows])
        elif not rows:
            click.echo("no pair is expected")
        for row in rows if not as_json else ():
            click.echo(_words(row))
        return
    with Store.open(settings.skills_db, synchronous=settings.synchronous) as store:
        one, other = skills
        row = (
            expected.remove(store, one, other)
            if remove
            else expected.write(store, one, other, lift)
        )
    if as_json:
        options.print_json(asdict(row) | {"removed": remove})
    else:
        click.echo(("removed: " if remove else "expected: ") + _words(row))


def _words(row: expected.Expected) -> str:
    lift = "" if row.lift is None else f", lift {row.lift:g}"
    return f"{row.skill_a} + {row.skill_b}{lift}"
