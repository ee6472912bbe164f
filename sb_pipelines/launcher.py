"""Starts Dagster: its home folder, its command line, its environment.

Needs no checkout: the instance's and the workspace's files are packaged beside this module. What
Dagster then loads is `definitions`; its processes are owned by `supervisor`; refreshing without
Dagster's services is `refresh`.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

from sb_pipelines.supervisor import Family
from sb_serving.errors import SbError
from sb_serving.settings import Settings

TICK_SECONDS = 0.5

_NOT_FOR_USERS = "ignore:Function `dev_command` is superseded"
"""`dg dev`, which Dagster advises, needs a project folder; an installed wheel has none."""

_PACKAGED = Path(__file__).parent


def prepare_home(settings: Settings) -> Path:
    """Make Dagster's folder with its `dagster.yaml`; one that is there is left as it is.

    Returns:
        The folder. Without a `dagster.yaml` in it, Dagster would keep its history in a temporary
        folder and lose it.

    Raises:
        SbError: The folder cannot be made.
    """
    home = settings.dagster_home
    try:
        home.mkdir(parents=True, exist_ok=True)
        if not (home / "dagster.yaml").exists():
            shutil.copyfile(_PACKAGED / "dagster.yaml", home / "dagster.yaml")
    except OSError as error:
        raise SbError(
            f"dagster_home = {home} cannot be made: {error}", fix="Set it to a writable folder."
        ) from error
    return home


def dagster_command(settings: Settings) -> tuple[list[str], dict[str, str]]:
    """The command that runs Dagster's services and UI on loopback, and its environment.

    Every setting is handed on as `SB_*`, so that runs see what the caller was given by flags too.
    Start it in a `supervisor.Family`: Dagster ends its own children on SIGINT only, and leaves four
    processes running on SIGTERM or when it is killed.

    Raises:
        SbError: Dagster's folder cannot be made.
    """
    home = prepare_home(settings)
    argv = [
        *(sys.executable, "-m", "dagster", "dev"),
        *("-w", str(_PACKAGED / "workspace.yaml")),
        *("-h", "127.0.0.1", "-p", str(settings.dagster_port)),
        *("--log-level", "warning", "--code-server-log-level", "warning"),
    ]
    # The rest of the environment is passed through, not read: settings come from `settings` alone.
    environment = {**os.environ, **settings.as_environment(), "DAGSTER_HOME": str(home)}
    environment["PYTHONWARNINGS"] = ",".join(
        filter(None, [environment.get("PYTHONWARNINGS"), _NOT_FOR_USERS])
    )
    return argv, environment


def run(settings: Settings) -> None:
    """Run Dagster until it ends, or until this process is interrupted; no process stays behind.

    Raises:
        SbError: Dagster ended by itself.
    """
    argv, environment = dagster_command(settings)
    log = settings.home / "logs" / "dagster.log"
    with Family() as family:
        family.start("dagster", argv, environment, log)
        while family.ended() is None:
            time.sleep(TICK_SECONDS)
    raise SbError("Dagster ended by itself", fix=f"See {log}.")
