"""The fast path: the jobs `refresh` and `models` in this process, without Dagster's services.

Dagster takes about ten seconds of CPU to start a run of its own; this takes what the work takes.
A run is the same job on the same instance where there is one, so it shows in the UI like any
other.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sb_serving.errors import SbError
from sb_serving.settings import Settings

if TYPE_CHECKING:
    import dagster as dg

JOB, MODELS, FULL = "refresh", "models", "full_refresh"

# Dagster writes each event and a traceback of each failure to stderr; the run keeps them anyway.
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True, slots=True)
class RefreshResult:
    """What one refresh did.

    Attributes:
        snapshot_number: The published snapshot.
        watermark_id: The newest invocation that is in it.
        new_rows: Invocations read.
        invalid_rows: Invocations, of all, whose start cannot be read.
        days_rebuilt: Days whose hours were computed.
        rebuilt: Why everything was rebuilt from scratch; empty where it was not.
        run_id: The run's id in Dagster.
        seconds: Time taken, from the start of the run.
    """

    snapshot_number: int
    watermark_id: int
    new_rows: int
    invalid_rows: int
    days_rebuilt: int
    rebuilt: str
    run_id: str
    seconds: float


def refresh(settings: Settings, *, models: bool = False, full: bool = False) -> RefreshResult:
    """Bring the warehouse up to the newest row and publish a snapshot.

    Where another process writes the warehouse, waits for it, with a message, for a bounded time.

    Args:
        settings: Where the files are.
        models: Whether to compute the slow result tables too, and publish them.
        full: Whether to compute everything anew from the first row on, the slow tables too. Until
            the new snapshot is there the last one is served.

    Raises:
        SbError: There is no event store, a file is in use or damaged, or a check failed; nothing is
            published then, and the last snapshot is served on.
    """
    from sb_pipelines.definitions import build
    from sb_pipelines.defs.time_series import daily

    built = build(settings)
    started = time.monotonic()
    with _instance(settings) as instance:
        today = daily(settings).get_last_partition_key()
        result = last = _run(
            built.resolve_job_def(FULL if full else JOB), instance, partition_key=today
        )
        if models and not full:
            last = _run(built.resolve_job_def(MODELS), instance)
    loaded = _metadata(result, "events")
    published = _metadata(last, "published_snapshot")
    return RefreshResult(
        snapshot_number=published["snapshot_number"],
        watermark_id=published["watermark_id"],
        new_rows=loaded["new_rows"],
        invalid_rows=loaded["invalid_rows"],
        days_rebuilt=_metadata(result, "skill_time_series")["days_rebuilt"],
        rebuilt=loaded.get("rebuilt", ""),
        run_id=result.run_id,
        seconds=time.monotonic() - started,
    )


def _run(
    job: dg.JobDefinition, instance: dg.DagsterInstance, partition_key: str | None = None
) -> dg.ExecuteInProcessResult:
    result = job.execute_in_process(
        instance=instance,
        partition_key=partition_key,
        run_config=_QUIET,
        raise_on_error=False,
        tags={"sb/started_by": "sb refresh"},
    )
    if not result.success:
        raise _failure(result)
    return result


@contextmanager
def _instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    """The user's Dagster instance where there is one, else one that is forgotten."""
    import dagster as dg

    if (settings.dagster_home / "dagster.yaml").exists():
        with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
            yield instance
    else:
        with dg.DagsterInstance.ephemeral() as instance:
            yield instance


def _metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    """The metadata of an asset's own materialization, the last one that its step logged."""
    found = result.asset_materializations_for_node(asset)
    return {name: value.value for name, value in found[-1].metadata.items()}


def _failure(result: dg.ExecuteInProcessResult) -> SbError:
    """What went wrong first, in one line."""
    for event in result.all_events:
        if not event.is_step_failure:
            continue
        data = event.step_failure_data
        if data.user_failure_data is not None and data.user_failure_data.description:
            return SbError(data.user_failure_data.description)
        checks = [check for check in result.get_asset_check_evaluations() if not check.passed]
        if checks:
            values = {name: value.value for name, value in checks[0].metadata.items()}
            return SbError(
                f"the check {checks[0].check_name} of {checks[0].asset_key.to_user_string()} "
                f"failed: {values}",
                fix="Nothing was published. If it fails again, run `sb refresh --full`.",
            )
        error = data.error
        while error is not None and error.cause is not None:
            # The outer ones only say that a step failed, or was tried too often.
            error = error.cause
        message = error.message.strip() if error else "no reason was recorded"
        return SbError(
            f"{event.step_key} failed: {message}", fix="If it fails again, run `sb refresh --full`."
        )
    return SbError(f"the run {result.run_id} failed before its first step")
