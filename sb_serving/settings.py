"""All settings, read once: flags over `SB_*` environment variables over `sb.toml` over defaults.

This is the only module that reads the environment. Each setting is one field of `Settings`; its
environment variable is `SB_` plus the field's name in capitals, its key in `sb.toml` the field's
name. `docs/settings.md` lists them; a test keeps the two equal.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any

from sb_serving.errors import SbError


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting, validated.

    Attributes:
        home: Folder of all files below.
        skills_db: The event store, the only file that must be backed up.
        warehouse: DuckDB file of the batch side; rebuilt from `skills_db` when lost.
        snapshots: Folder of published snapshots.
        dagster_home: Dagster's own folder.
        identity_key: Key file for hashing user and project names; a team may share it.
        feed: Address of the WebSocket feed.
        metrics: Address of the Prometheus endpoint.
        http: Address of MCP over HTTP, health and readiness.
        dagster_port: Port of the Dagster UI that `sb up` starts, on loopback.
        token_file: File with the bearer token that a non-loopback address requires.
        claude_dir: Claude Code's own folder; its transcripts are in `projects/` below it. Defaults
            to what `CLAUDE_CONFIG_DIR` says, then `~/.claude`.
        user: Who to record local calls as; empty means the login name. Stored hashed.
        synchronous: SQLite's durability: NORMAL survives a crash of the program, FULL also a loss
            of power.
        partitions_start: First day that gets a Dagster partition; older rows are still served.
        refresh_seconds: Least time between two refreshes that new data triggers.
        keep_snapshots: How many published snapshots stay on disk.
        keep_runs_days: How many days Dagster's finished runs and their logs stay.
        keep_hours_days: How many days `skill_hour` keeps hours; older ones become days.
        keep_events_days: How many days single events stay; older days become totals. 0 keeps all.
        write_back: Whether results are written into the derived tables of `skills_db`.
    """

    home: Path
    skills_db: Path
    warehouse: Path
    snapshots: Path
    dagster_home: Path
    identity_key: Path
    claude_dir: Path
    feed: str = "127.0.0.1:8765"
    metrics: str = "127.0.0.1:9090"
    http: str = "127.0.0.1:8787"
    dagster_port: int = 3000
    token_file: Path | None = None
    user: str = ""
    synchronous: str = "NORMAL"
    partitions_start: str = "2024-01-01"
    refresh_seconds: int = 300
    keep_snapshots: int = 3
    keep_runs_days: int = 7
    keep_hours_days: int = 90
    keep_events_days: int = 0
    write_back: bool = True

    @classmethod
    def load(cls, **flags: Any) -> Settings:
        """Read flags, environment, `sb.toml` and defaults, in this order of precedence.

        Args:
            **flags: Field names with values; None means that the flag was not given.

        Raises:
            SbError: An unknown key, or a value of the wrong form; names the place it came from.
        """
        given = {name: value for name, value in flags.items() if value is not None}
        home = Path(given.pop("home", None) or os.environ.get("SB_HOME") or _default_home())
        home = home.expanduser().absolute()
        values = _defaults(home) | _from_toml(home / "sb.toml") | _from_environment()
        values |= {name: _convert(name, value, "flag") for name, value in given.items()}
        return cls(home=home, **values)

    def as_environment(self) -> dict[str, str]:
        """All settings as `SB_*` variables, for a child process that must see the same ones."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            f"SB_{name.upper()}": str(value) for name, value in values.items() if value is not None
        }


def _default_home() -> Path:
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "session-buddy-analytics"


def _defaults(home: Path) -> dict[str, Any]:
    return {
        "skills_db": home / "skills.db",
        "warehouse": home / "warehouse.duckdb",
        "snapshots": home / "snapshots",
        "dagster_home": home / "dagster",
        "identity_key": home / "identity.key",
        "claude_dir": _path(os.environ.get("CLAUDE_CONFIG_DIR") or "~/.claude"),
    }


def _from_toml(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SbError(f"{path} is not valid TOML: {error}", fix="Mend or remove it.") from None
    return {name: _convert(name, value, str(path)) for name, value in table.items()}


def _from_environment() -> dict[str, Any]:
    names = {field.name for field in fields(Settings)} - {"home"}
    return {
        name: _convert(name, os.environ[variable], variable)
        for name in sorted(names)
        if (variable := f"SB_{name.upper()}") in os.environ
    }


def _address(value: Any) -> str:
    host, _, port = str(value).rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ValueError("expected HOST:PORT, for example 127.0.0.1:8765")
    return str(value)


def _path(value: Any) -> Path:
    return Path(str(value)).expanduser().absolute()


def _at_least(least: int) -> Any:
    def convert(value: Any) -> int:
        number = int(str(value))
        if number < least:
            raise ValueError(f"expected a whole number of at least {least}")
        return number

    return convert


def _keep_events(value: Any) -> int:
    number = int(str(value))
    # The search for anomalies reads single events of ten weeks.
    if number and number < 90:
        raise ValueError("expected 0, which keeps all, or a whole number of at least 90")
    return number


def _switch(value: Any) -> bool:
    text = str(value).lower()
    if text not in ("true", "false", "1", "0"):
        raise ValueError("expected true or false")
    return text in ("true", "1")


def _synchronous(value: Any) -> str:
    if str(value).upper() not in ("NORMAL", "FULL"):
        raise ValueError("expected NORMAL or FULL")
    return str(value).upper()


_CONVERTERS: dict[str, Any] = {
    "skills_db": _path,
    "warehouse": _path,
    "snapshots": _path,
    "dagster_home": _path,
    "identity_key": _path,
    "claude_dir": _path,
    "feed": _address,
    "metrics": _address,
    "http": _address,
    "dagster_port": _at_least(1),
    "token_file": _path,
    "user": str,
    "synchronous": _synchronous,
    "partitions_start": lambda value: date.fromisoformat(str(value)).isoformat(),
    "refresh_seconds": _at_least(30),
    "keep_snapshots": _at_least(1),
    "keep_runs_days": _at_least(1),
    # The predictor reads hours of the last seven days, and one more is under way.
    "keep_hours_days": _at_least(9),
    "keep_events_days": _keep_events,
    "write_back": _switch,
}


def _convert(name: str, value: Any, origin: str) -> Any:
    if name not in _CONVERTERS:
        known = ", ".join(sorted(_CONVERTERS))
        raise SbError(f"unknown setting {name!r} in {origin}", fix=f"Known settings: {known}.")
    try:
        return _CONVERTERS[name](value)
    except ValueError as error:
        raise SbError(f"{name} = {value!r} (from {origin}): {error}") from None
