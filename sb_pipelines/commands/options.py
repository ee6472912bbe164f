"""Options that several commands share."""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import click

from sb_serving.settings import Settings

Command = TypeVar("Command", bound=Callable[..., Any])


def home(function: Command) -> Command:
    """`--home`: the folder of all files."""
    return click.option(
        "--home",
        type=click.Path(path_type=Path),
        help="Folder of all files (SB_HOME).",
    )(function)


def db(function: Command) -> Command:
    """`--db`: the event store."""
    return click.option(
        "--db",
        "skills_db",
        type=click.Path(path_type=Path),
        help="The event store (SB_SKILLS_DB).",
    )(function)


def as_json(function: Command) -> Command:
    """`--json`: print JSON instead of text."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def local_user(settings: Settings) -> str:
    """The name that local calls are recorded under."""
    return settings.user or getpass.getuser()


def shallow(record: Any) -> dict[str, Any]:
    """A dataclass as a dict of its fields; `asdict` would rebuild a `Counter` from its pairs."""
    return {field.name: getattr(record, field.name) for field in fields(record)}


def print_json(value: Any) -> None:
    """Print a JSON document; NaN is a programming error, not output."""
    click.echo(json.dumps(value, indent=2, allow_nan=False, default=_plain))


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set | frozenset) else str(value)
