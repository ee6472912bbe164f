"""Keeps files from growing for ever: old runs of Dagster, old hours of `skill_hour`, old events.

What is removed is nowhere asked for any more. A refresh leaves about 200 kB behind, and Dagster
never removes a run: a busy week is 200 MB. But the state of a partition is read from the events of
the run that made it, which go with the run; so what would be forgotten is reported again.
"""

import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import dagster as dg

from sb_pipelines import pruning
from sb_pipelines.resources import POOL, SkillsDb, Snapshots, Warehouse, user_failures
from sb_serving import times
from sb_serving.settings import Settings
from sb_serving.store import Store, retention

BATCH = 100

_FINISHED = [
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
]


def remove_old_runs(instance: dg.DagsterInstance, before: datetime) -> int:
    """Remove finished runs and their files; materializations stay known.

    Args:
        instance: Dagster's storage.
        before: Runs that were created earlier go.

    Returns:
        How many were removed.
    """
    removed = 0
    known = {key: _materialized(instance, key) for key in instance.all_asset_keys()}
    for run_id in _old_runs(instance, before):
        instance.delete_run(run_id)
        _remove_files(instance, run_id)
        removed += 1
    for key, partitions in known.items():
        for partition in sorted(partitions - _materialized(instance, key), key=str):
            instance.report_runless_asset_event(
                dg.AssetMaterialization(
                    asset_key=key,
                    partition=partition,
                    metadata={"note": f"the run that made it ended before {before:%Y-%m-%d}"},
                )
            )
    return removed


def _old_runs(instance: dg.DagsterInstance, before: datetime) -> Iterator[str]:
    filters = dg.RunsFilter(statuses=_FINISHED, created_before=before)
    while True:
        # Always from the start: what was given out is gone when the next batch is asked for.
        runs = instance.get_runs(filters, limit=BATCH)
        if not runs:
            return
        yield from (run.run_id for run in runs)


def _materialized(instance: dg.DagsterInstance, key: dg.AssetKey) -> set[str | None]:
    """The materialized partitions of an asset; {None} for one without partitions."""
    if instance.get_latest_materialization_event(key) is None:
        return set()
    return set(instance.get_materialized_partitions(key)) or {None}


def _remove_files(instance: dg.DagsterInstance, run_id: str) -> None:
    """Remove a run's event file and logs: Dagster empties the one and leaves the other."""
    root = Path(instance.root_directory)
    for path in (root / "history" / "runs").glob(f"{run_id}.db*"):
        path.unlink(missing_ok=True)
    shutil.rmtree(root / "storage" / run_id, ignore_errors=True)


def remove_runs(keep_days: int) -> dg.OpDefinition:
    """The step that removes runs of more than `keep_days` days ago."""

    @dg.op(out=dg.Out(dg.Nothing))
    def remove_runs(context: dg.OpExecutionContext) -> None:
        """Remove old runs with their events and logs."""
        before = times.now() - timedelta(days=keep_days)
        removed = remove_old_runs(context.instance, before)
        context.log.info("removed %s runs from before %s", removed, before.date())

    return remove_runs


def merge_hours(keep_days: int) -> dg.OpDefinition:
    """The step that makes hours of more than `keep_days` days ago days."""

    @dg.op(out=dg.Out(dg.Nothing))
    def merge_hours(context: dg.OpExecutionContext, skills: SkillsDb) -> None:
        """Merge old hours of `skill_hour`; their sums stay."""
        if not skills.exists():
            return
        before = (times.now() - timedelta(days=keep_days)).date()
        with user_failures(), Store.open(skills.path) as store:
            removed = retention.merge_hours(store, before)
        context.log.info("merged the hours before %s: %s rows fewer", before, removed)

    return merge_hours


def prune_events(settings: Settings) -> dg.OpDefinition:
    """The step that leaves only totals of events of more than `keep_events_days` days ago."""

    @dg.op(out=dg.Out(dg.Nothing), pool=POOL)
    def prune_events(
        context: dg.OpExecutionContext,
        skills: SkillsDb,
        warehouse: Warehouse,
        snapshots: Snapshots,
    ) -> None:
        """Prune what is counted and published."""
        if not (skills.exists() and warehouse.path.exists() and snapshots.any()):
            return
        with user_failures():
            before = pruning.first_kept(settings, times.now())
            done = pruning.prune(skills, warehouse, snapshots, before)
        context.log.info("pruned %s rows of %s days before %s", done.rows, done.days, before)
        if done.waits:
            context.log.info("others wait: %s", done.waits)

    return prune_events


def housekeeping(settings: Settings) -> dg.JobDefinition:
    """The job; its steps do not wait for each other."""
    events = (
        f", and leaves only totals of events of more than {settings.keep_events_days} days ago"
        if settings.keep_events_days
        else ""
    )

    @dg.job(
        description=f"Removes runs of more than {settings.keep_runs_days} days ago, makes hours of"
        f" more than {settings.keep_hours_days} days ago days{events}."
    )
    def housekeeping() -> None:
        remove_runs(settings.keep_runs_days)()
        merge_hours(settings.keep_hours_days)()
        if settings.keep_events_days:
            prune_events(settings)()

    return housekeeping


def defs(settings: Settings) -> dg.Definitions:
    """The job and its schedule."""
    job = housekeeping(settings)
    daily = dg.ScheduleDefinition(
        name="daily_housekeeping",
        job=job,
        cron_schedule="40 3 * * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    return dg.Definitions(jobs=[job], schedules=[daily])
