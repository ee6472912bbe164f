"""When what is computed: new rows start a refresh, the hour a refresh and the slow models.

The sensor `new_events` and the schedule `hourly` ask for today's partition of the job `refresh`;
which days are really rebuilt is the asset's own knowledge (`time_series`), so neither can forget a
late row. What takes longer is the job `models`, hourly too. Jobs with another rhythm (`audit`,
`housekeeping`) bring their own schedules.
"""

from collections.abc import Iterator

import dagster as dg

from sb_pipelines.defs.audit import AUDITS
from sb_pipelines.defs.events import FULL_TAG
from sb_pipelines.defs.time_series import daily
from sb_pipelines.resources import SkillsDb, Snapshots
from sb_serving.errors import SbError
from sb_serving.settings import Settings

SLOW_GROUP = "models"
"""Assets of this group take long: `refresh` leaves them out, they have their own schedule."""

refresh = dg.define_asset_job(
    "refresh",
    selection=dg.AssetSelection.all()
    - dg.AssetSelection.groups(SLOW_GROUP)
    - dg.AssetSelection.checks(*AUDITS),
    description="Everything from new rows to the published snapshot.",
)

models = dg.define_asset_job(
    "models",
    selection=dg.AssetSelection.groups(SLOW_GROUP)
    | dg.AssetSelection.assets("published_snapshot").downstream(),
    description="The slow result tables from what is in the warehouse, then the snapshot.",
)


full_refresh = dg.define_asset_job(
    "full_refresh",
    selection=dg.AssetSelection.all() - dg.AssetSelection.checks(*AUDITS),
    tags={FULL_TAG: "true"},
    description="Everything derived, from scratch, the slow models too.",
)


def new_events(settings: Settings, partitions: dg.DailyPartitionsDefinition) -> dg.SensorDefinition:
    """The sensor: one run when there are new rows, at most every `refresh_seconds`."""

    @dg.sensor(
        job=refresh,
        minimum_interval_seconds=settings.refresh_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Asks for a refresh when the event store has rows past the cursor.",
    )
    def new_events(
        context: dg.SensorEvaluationContext, skills: SkillsDb
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        # The cursor is a hint, the truth is the warehouse's watermark: a reset cursor costs one
        # run that finds nothing, and rows of a failed run are picked up by the next.
        if not skills.exists():
            yield dg.SkipReason(f"there is no database at {skills.path} yet")
            return
        try:
            top = skills.top()
        except SbError as error:
            yield dg.SkipReason(str(error))
            return
        if str(top) == (context.cursor or "0"):
            yield dg.SkipReason(f"no rows past id {top}")
            return
        # Dagster never launches the same run_key twice, so it names the rows, and the cursor moves.
        context.update_cursor(str(top))
        yield dg.RunRequest(
            run_key=f"events-{top}", partition_key=partitions.get_last_partition_key()
        )

    return new_events


def hourly(partitions: dg.DailyPartitionsDefinition) -> dg.ScheduleDefinition:
    """The schedule: silence is news too, and what a failed run left is done again."""

    @dg.schedule(
        job=refresh,
        cron_schedule="0 * * * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Refreshes every hour, also when nothing is new.",
    )
    def hourly(skills: SkillsDb) -> dg.RunRequest | dg.SkipReason:
        if not skills.exists():
            return dg.SkipReason(f"there is no database at {skills.path} yet")
        return dg.RunRequest(partition_key=partitions.get_last_partition_key())

    return hourly


@dg.schedule(
    job=models,
    # Between two hourly refreshes, which use the same warehouse.
    cron_schedule="30 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Computes the slow result tables every hour.",
)
def hourly_models(snapshots: Snapshots) -> dg.RunRequest | dg.SkipReason:
    """The schedule of the slow tables; there is nothing to compute before a first refresh."""
    if not snapshots.any():
        return dg.SkipReason("nothing was published yet")
    return dg.RunRequest()


@dg.sensor(
    job=models,
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Computes the slow result tables once, right after the first refresh.",
)
def first_models(
    context: dg.SensorEvaluationContext, snapshots: Snapshots
) -> dg.RunRequest | dg.SkipReason:
    """Nobody should wait half an hour for the first trends of a new installation."""
    if context.cursor:
        return dg.SkipReason("the models were asked for before; the schedule goes on with them")
    if not snapshots.any():
        return dg.SkipReason("nothing was published yet")
    context.update_cursor("asked")
    return dg.RunRequest(run_key="first")


def defs(settings: Settings) -> dg.Definitions:
    """The jobs, their sensors and their schedules."""
    partitions = daily(settings)
    return dg.Definitions(
        jobs=[refresh, models, full_refresh],
        sensors=[new_events(settings, partitions), first_models],
        schedules=[hourly(partitions), hourly_models],
    )
