"""The root of the batch side: finds the definitions, gives them their resources.

Only what concerns all assets is here. An asset's own definition is in `defs/`, how files are opened
in `resources`, how Dagster is started in `launcher`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

import dagster as dg

import sb_pipelines.defs
from sb_pipelines.resources import SkillsDb, Snapshots, Warehouse
from sb_serving.settings import Settings


def build(settings: Settings, resources: Mapping[str, Any] | None = None) -> dg.Definitions:
    """Everything that Dagster is to know.

    Args:
        settings: Paths, the partitions' start, the refresh interval.
        resources: Takes the place of resources of the same name.
    """
    found = [
        importlib.import_module(f"{sb_pipelines.defs.__name__}.{module.name}").defs(settings)
        for module in pkgutil.iter_modules(sb_pipelines.defs.__path__)
    ]
    own: dict[str, Any] = {
        "skills": SkillsDb(path=str(settings.skills_db)),
        "warehouse": Warehouse(database=str(settings.warehouse)),
        "snapshots": Snapshots(folder=str(settings.snapshots), keep=settings.keep_snapshots),
    }
    common = dg.Definitions(resources=own | dict(resources or {}), executor=dg.in_process_executor)
    return dg.Definitions.merge(*found, common)


@dg.definitions
def defs() -> dg.Definitions:
    """What `dagster dev` loads: the user's own settings."""
    return build(Settings.load())
