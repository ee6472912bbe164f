"""Kills a refresh in each of its steps: the last snapshot serves, and the next refresh heals.

`python -m tests.chaos.chaos_refresh 10` kills every step ten times, those of the job `models` too,
at random moments between its first look at the warehouse and its last, and prints how many kills
came before the step ended; names of steps after the number choose among them.
"""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

import dagster as dg
import duckdb

from sb_pipelines.definitions import build
from sb_pipelines.defs import audit
from sb_pipelines.defs.automation import SLOW_GROUP
from sb_pipelines.defs.time_series import daily
from sb_pipelines.refresh import refresh
from sb_pipelines.resources import SkillsDb, Warehouse
from sb_serving import times
from sb_serving.settings import Settings
from sb_serving.snapshot import SnapshotHolder
from sb_serving.store import Store
from sb_serving.store.connection import connect_readonly
from tests.builders import invocation
from tests.chaos.killing import Victim, pause, wait_for_begin

OLD, NEW, SKILLS = 4_000, 600, 12


def run(
    rounds: int,
    seed: int = 1,
    only: Sequence[str] = (),
    tell: Callable[[str], object] = len,
) -> dict[str, int]:
    """Kill a refresh in each step and each round, look at what it left, and refresh again.

    Args:
        rounds: How many for each step.
        seed: Of the moments.
        only: Steps; default all of them.
        tell: Told what came of each step.

    Returns:
        By step, how often the kill came before the step's end.

    Raises:
        AssertionError: No snapshot was served, an event is lost, or the next refresh did not heal.
    """
    draw = random.Random(seed)
    met = {}
    with tempfile.TemporaryDirectory() as name:
        before = prepared(Path(name, "before"))
        undisturbed = _settings(shutil.copytree(before.home, Path(name, "undisturbed")))
        targets = only or [step for step, _ in steps(before)]
        seconds = _materialize(undisturbed, targets)
        for step in targets:
            met[step] = 0
            for number in range(rounds):
                home = Path(name, f"{step}-{number}")
                shutil.copytree(before.home, home)
                moment = draw.uniform(0, seconds[step])
                met[step] += _round(_settings(home), step, moment, undisturbed)
                shutil.rmtree(home)
            tell(
                f"{step:26} {met[step]} of {rounds} killed inside its {seconds[step]:.2f} s;"
                " all healed"
            )
    return met


def together(rounds: int) -> None:
    """Start two refreshes at the same moment, as two daemons would.

    Raises:
        AssertionError: One failed, or their files do not agree.
    """
    with tempfile.TemporaryDirectory() as name:
        before = prepared(Path(name, "before"))
        for number in range(rounds):
            home = Path(name, str(number))
            shutil.copytree(before.home, home)
            settings = _settings(home)
            both = [
                subprocess.Popen(
                    [sys.executable, "-m", "sb_pipelines.cli", "refresh", "--json"],
                    env=os.environ | settings.as_environment() | {"SB_HOME": str(home)},
                    stdout=subprocess.PIPE,
                    text=True,
                )
                for _ in range(2)
            ]
            said = [json.loads(process.communicate()[0]) for process in both]
            assert {one["snapshot_number"] for one in said} == {2, 3}
            look(settings, OLD + NEW)


def locked(seconds: float) -> None:
    """Refresh while another program holds the write lock of `skills.db`.

    Raises:
        AssertionError: The refresh did not wait, or its files do not agree.
    """
    with tempfile.TemporaryDirectory() as name:
        settings = prepared(Path(name))
        other = sqlite3.connect(settings.skills_db, isolation_level=None, check_same_thread=False)
        other.execute("begin immediate")
        threading.Timer(seconds, lambda: other.execute("rollback")).start()
        refresh(settings)
        other.close()
        look(settings, OLD + NEW)


def steps(settings: Settings) -> list[tuple[str, list[dg.AssetKey]]]:
    """Each step of a refresh and its assets, in the order of their dependencies."""
    built = build(settings)
    order = built.resolve_asset_graph().toposorted_asset_keys
    found = [
        (asset.node_def.name, sorted(asset.keys))
        for asset in built.assets or []
        if isinstance(asset, dg.AssetsDefinition) and asset.is_executable
    ]
    return sorted(found, key=lambda step: max(order.index(key) for key in step[1]))


def _settings(home: Path) -> Settings:
    return Settings.load(home=home, partitions_start=_day(60))


def _day(ago: int) -> str:
    return (times.now() - timedelta(days=ago)).date().isoformat()


def prepared(home: Path) -> Settings:
    """A home that was refreshed, and has news since, some of them late."""
    settings = _settings(home)
    now = times.now()
    draw = random.Random(0)

    def some(first: int, count: int, days: float) -> None:
        with Store.open(settings.skills_db, create=True) as store:
            store.bulk_import(
                invocation(
                    number,
                    skill_name=f"skill-{draw.randrange(SKILLS)}",
                    session_id=f"s{number // 9}",
                    user_id=f"{number // 50 % 7:032x}",
                    invoked_at=times.to_utc_text(now - timedelta(days=draw.uniform(0, days))),
                    outcome=draw.choice(["completed", "completed", "failed", "rejected"]),
                )
                for number in range(first, first + count)
            )

    some(0, OLD, 40)
    refresh(settings)
    some(OLD, NEW, 3)
    return settings


def _round(settings: Settings, step: str, seconds: float, undisturbed: Settings) -> bool:
    victim = Victim("tests.chaos.chaos_refresh", ["--victim", str(settings.home), step])
    victim.ready()
    victim.begin()
    victim.ready()  # the steps before are done, and this one opens the warehouse
    pause(seconds)
    in_time = "done" not in victim.kill()
    holder = SnapshotHolder(settings.snapshots)
    with holder.pin() as served:
        assert served is not None, f"killed in {step}: nothing is served"
        assert holder.refused == ()
        assert served.query("select sum(n) from skill_totals") in ([(OLD,)], [(OLD + NEW,)])
    holder.close()
    refresh(settings)
    look(settings, OLD + NEW)
    keys = dict(steps(settings))[step]
    if is_slow(settings, keys[0]):
        _materialize(settings, [step])
        results = [key.to_user_string() for key in keys]
        assert result_rows(settings, results) == result_rows(undisturbed, results)
    return in_time


def is_slow(settings: Settings, key: dg.AssetKey) -> bool:
    """Whether an asset belongs to the job `models`, which a refresh leaves out."""
    return build(settings).resolve_asset_graph().get(key).group_name == SLOW_GROUP


def result_rows(settings: Settings, tables: Sequence[str]) -> dict[str, int]:
    """How many rows the warehouse has of each table, where there is one."""
    with Warehouse(database=str(settings.warehouse)).reading() as connection:
        there = {name for (name,) in connection.execute("show tables").fetchall()}
        return {name: len(connection.table(name)) for name in tables if name in there}


def look(settings: Settings, rows: int) -> None:
    """Check that files agree after a refresh: the store, the warehouse, the snapshot, write-back.

    Raises:
        AssertionError: They do not.
    """
    with closing(connect_readonly(settings.skills_db)) as connection:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
        assert connection.execute("pragma foreign_key_check").fetchall() == []
        assert connection.execute("select count(*) from skill_invocation").fetchone() == (rows,)
        hours = connection.execute(
            "select skill_name, substr(timestamp, 1, 13), invocation_count from skill_time_series"
            " order by 1, 2"
        ).fetchall()
        assert (
            hours
            == connection.execute(
                "select skill_name, hour, completed + failed + rejected + cancelled + interrupted"
                " + no_result from skill_hour order by 1, 2"
            ).fetchall()
        ), "the written series is not what the triggers counted"
    with Warehouse(database=str(settings.warehouse)).reading() as connection:
        assert set(audit.all_differing(connection).values()) == {0}
        assert connection.execute("select * from changed_hours").fetchall() == []
    holder = SnapshotHolder(settings.snapshots)
    with holder.pin() as served:
        assert served is not None
        assert served.manifest.watermark_id == SkillsDb(path=str(settings.skills_db)).top()
        assert served.query("select sum(n) from skill_totals") == [(rows,)]
    holder.close()
    left = [path.name for path in settings.snapshots.glob(".tmp-*")]
    assert left == [], left


def _victim(settings: Settings, target: str) -> None:
    """Run up to a step, and say when it begins and when it has ended."""

    def begins(step: str) -> None:
        if step == target:
            sys.stdout.write("ready\n")
            sys.stdout.flush()

    wait_for_begin()
    _materialize(settings, [target], begins)
    sys.stdout.write("done\n")
    sys.stdout.flush()


def _materialize(
    settings: Settings, targets: Sequence[str], begins: Callable[[str], object] = len
) -> dict[str, float]:
    """Run step by step up to the last target.

    Other slow models are left out: nothing else stands on them.

    Args:
        settings: Which files.
        targets: Steps that must run.
        begins: Told each step when it opens the warehouse.

    Returns:
        How many seconds passed in each step until it had closed the warehouse for the last time.
    """
    built = build(settings)
    graph = built.resolve_asset_graph()
    job = built.resolve_implicit_global_asset_job_def()
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    seconds: dict[str, float] = {}
    with dg.DagsterInstance.ephemeral() as instance:
        for step, keys in steps(settings):
            if graph.get(keys[0]).group_name == SLOW_GROUP and step not in targets:
                continue
            partitioned = graph.get(keys[0]).partitions_def is not None
            with _watched(functools.partial(begins, step)) as at_work:
                job.execute_in_process(
                    instance=instance,
                    asset_selection=keys,
                    partition_key=daily(settings).get_last_partition_key() if partitioned else None,
                    run_config=quiet,
                )
            seconds[step] = at_work[-1] - at_work[0]
            if set(targets) <= seconds.keys():
                break
    return seconds


@contextmanager
def _watched(begins: Callable[[], object]) -> Iterator[list[float]]:
    """Tell when the warehouse is first opened: before that a step is Dagster's.

    Yields:
        Moments at which it was opened and closed.
    """
    moments: list[float] = []
    real = Warehouse.get_connection

    @contextmanager
    def told(self: Warehouse, **how: bool) -> Iterator[duckdb.DuckDBPyConnection]:
        if not moments:
            begins()
        moments.append(time.perf_counter())
        with real(self, **how) as connection:
            yield connection
        moments.append(time.perf_counter())

    with patch.object(Warehouse, "get_connection", told):
        yield moments


if __name__ == "__main__":
    if sys.argv[1] == "--victim":
        _victim(_settings(Path(sys.argv[2])), sys.argv[3])
    else:
        run(int(sys.argv[1]), only=sys.argv[2:], tell=functools.partial(print, flush=True))
        if not sys.argv[2:]:
            together(3)
            print("two refreshes at once, 3 times: both published, all agrees")
            locked(60)
            print("skills.db locked for 60 s: written back afterwards, all agrees")
