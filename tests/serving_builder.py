"""An installation to serve: a recent event store, settings with free ports, a child process."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from sb_serving import times
from sb_serving.settings import Settings
from sb_serving.store import Store
from tests.builders import invocation

SKILLS = {"commit": 6, "review": 3, "agent:explorer": 2}
"""What `fill` records: skill -> invocations of the last minutes; every third fails."""


def fill(path: Path, skills: Mapping[str, int] = SKILLS, first: int = 0) -> None:
    """Record invocations of the last minutes; `first` keeps event ids apart between calls."""
    now = times.now()
    numbers = iter(range(first, first + sum(skills.values())))
    with Store.open(path, create=True) as store:
        store.bulk_import(
            invocation(
                number := next(numbers),
                skill_name=skill,
                kind="subagent" if skill.startswith("agent:") else "skill",
                invoked_at=times.to_utc_text(now - timedelta(seconds=10 + number)),
                outcome="failed" if i % 3 == 2 else "completed",
            )
            for skill, n in skills.items()
            for i in range(n)
        )


def settings(**fields: Any) -> Settings:
    """The settings of `SB_HOME` with free ports."""
    ports = dict.fromkeys(("feed", "metrics", "http"), "127.0.0.1:0")
    return dataclasses.replace(Settings.load(), **(ports | fields))


def environment(**variables: str) -> dict[str, str]:
    """For a child process: ours, with free ports, and warnings as errors as in the tests."""
    ports = {f"SB_{name}": "127.0.0.1:0" for name in ("FEED", "METRICS", "HTTP")}
    return {**os.environ, **ports, "PYTHONWARNINGS": "error", **variables}


def python(code: str) -> list[str]:
    """The command that runs a piece of Python with this interpreter."""
    return [sys.executable, "-c", code]
