"""Speed of the batch side: rows of skills.db to a published snapshot, first and with a little news.

`python -m tests.bench.bench_pipeline [ROWS] [FOLDER]` prints the table; a FOLDER is kept, and a
store that is in it already is used again. Dagster's own time (its start, its events) is in the last
row only; the steps before are the functions that the assets call.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sb_serving import demo, times
from sb_serving.settings import Settings
from sb_serving.store import Store
from tests.bench.report import Row, markdown, peak_rss_mb

END = datetime(2026, 11, 22, tzinfo=UTC)
NEWS, LATE = 5_000, 200
BARS = {1_000_000: (15.0, 3_000.0), 10_000_000: (90.0, 3_000.0)}
"""Rows -> seconds, MB."""

DRAWN = 1_000_000
"""Rows that are drawn one by one."""

LOG = (
    *("id", "session_id", "skill_name", "invoked_at", "completed", "duration_seconds"),
    *("error_type", "workflow_phase"),
)
COMPANION = (
    *("id", "invocation_id", "session_id", "skill_name", "invoked_at", "completed", "user_id"),
    *("project_id", "outcome", "kind", "source", "agent", "agent_version", "model"),
    *("tool_calls", "tool_failures"),
)

FLOOR = """
select count(*), count(distinct skill_name), count(distinct kind), count(distinct outcome),
       max(invoked_at), sum(duration_seconds), max(session_id), max(user_id)
from events
"""
"""One scan of the columns that the series reads."""


def run(scale: int = 1_000_000, folder: Path | None = None) -> list[Row]:
    """Measure in a process of its own, whose memory is the pipeline's alone.

    Args:
        scale: Rows of the store.
        folder: Where the store is, or is to be; a temporary one if None.
    """
    with tempfile.TemporaryDirectory() as temporary:
        home = folder or Path(temporary)
        fill(home / "skills.db", scale)
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench.bench_pipeline", "--measure", str(home)],
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
    return rows(scale, json.loads(done.stdout.splitlines()[-1]))


def rows(scale: int, found: dict[str, float]) -> list[Row]:
    """The measurements as rows; the floor is one scan of the same events."""
    size = f"{scale:,} rows"
    seconds, megabytes = BARS.get(scale, (float("inf"), float("inf")))
    steps = ("events", "series", "totals", "checks", "publish")

    def cpu(name: str) -> float:
        return sum(found[f"{name} {step}, CPU"] for step in steps)

    total = sum(found[f"first {step}"] for step in steps)
    news = sum(found[f"news {step}"] for step in steps)
    floor = {"baseline": "one scan of the events", "baseline_value": found["floor"]}
    return [
        Row(
            f"first refresh of {size}, all steps",
            total,
            "s",
            **floor,
            bar=f"<= {seconds:g} s" if scale in BARS else "",
            met=total <= seconds if scale in BARS else None,
        ),
        *(Row(f"  {step}", found[f"first {step}"], "s", **floor) for step in steps),
        Row("  CPU of all steps", cpu("first"), "s", "the scan's CPU", found["floor, CPU"]),
        Row(
            "  peak memory",
            found["rss"],
            "MB",
            bar=f"<= {megabytes:g} MB" if scale in BARS else "",
            met=found["rss"] <= megabytes if scale in BARS else None,
        ),
        Row(f"{NEWS:,} new and {LATE} late rows on {size}, all steps", news, "s", **floor),
        *(Row(f"  {step}", found[f"news {step}"], "s", **floor) for step in steps),
        Row("  CPU of all steps", cpu("news"), "s", "the scan's CPU", found["floor, CPU"]),
        Row("`sb refresh` with nothing new, in this process", found["refresh"], "s"),
    ]


def fill(path: Path, scale: int) -> None:
    """A store of demo rows, without what the pipeline does not read: aggregates and event ids.

    Indexes are made after the rows, triggers not at all, and beyond a million the same million is
    repeated with sessions of its own: ten million rows take minutes.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with Store.open(path, create=True) as store:
        connection = store.connection
        connection.execute("pragma journal_mode = off")
        connection.execute("pragma synchronous = off")
        connection.execute("pragma foreign_keys = off")
        dropped = connection.execute(
            "select type, name, sql from sqlite_master"
            " where type in ('trigger', 'index') and sql is not null"
            " and tbl_name in ('skill_invocation', 'skill_user_interactions')"
        ).fetchall()
        for kind, name, _ in dropped:
            connection.execute(f'drop {kind} "{name}"')
        connection.execute("begin")
        base = min(scale, DRAWN)
        first = 1
        for chunk in demo.chunks(demo.DemoPlan(n=base, seed=1, end=END)):
            log, companion = tables(chunk, first)
            connection.executemany(insertion("skill_user_interactions", COMPANION), companion)
            connection.executemany(insertion("skill_invocation", LOG), log)
            first += len(chunk["skill_name"])
        for copy in range(1, scale // base):
            for table, columns, ids in (
                ("skill_user_interactions", COMPANION, 2),
                ("skill_invocation", LOG, 1),
            ):
                values = [
                    *(f"{name} + {copy * base}" for name in columns[:ids]),
                    f"session_id || '-{copy}'",
                    *columns[ids + 1 :],
                ]
                connection.execute(
                    f"insert into {table} ({', '.join(columns)})"
                    f" select {', '.join(values)} from {table} where id <= {base}"
                )
        for kind, _, text in dropped:
            if kind == "index":
                connection.execute(text)
        connection.execute("commit")
        connection.execute("pragma journal_mode = wal")


def insertion(table: str, columns: Sequence[str]) -> str:
    return f"insert into {table} ({', '.join(columns)}) values ({', '.join('?' * len(columns))})"


def tables(chunk: dict[str, Any], first: int) -> tuple[Iterator[Any], Iterator[Any]]:
    """The rows of the log and of its companion."""
    import numpy as np

    column = {name: values.tolist() for name, values in chunk.items()}
    start = [text + "+00:00" for text in np.datetime_as_string(chunk["invoked_at"], unit="us")]
    ids = range(first, first + len(start))
    found = column | {"id": ids, "invocation_id": ids, "invoked_at": start}
    return zip(*(found[name] for name in LOG), strict=True), zip(
        *(found[name] for name in COMPANION), strict=True
    )


def measure(home: Path) -> dict[str, float]:
    """Time each step on an empty warehouse, then with news; seconds of wall time and of CPU."""
    from sb_pipelines.definitions import build
    from sb_pipelines.refresh import refresh

    settings = Settings.load(home=home)
    settings.warehouse.unlink(missing_ok=True)
    found: dict[str, float] = {}
    steps = Steps(settings)
    steps.run("first", found)
    found["rss"] = peak_rss_mb()
    with steps.warehouse.reading() as connection, timed("floor", found):
        connection.execute(FLOOR).fetchall()
    add_news(settings)
    steps.run("news", found)
    build(settings)
    with timed("refresh", found):
        refresh(settings)
    return found


class Steps:
    """The functions of the assets and checks, in the order of a run."""

    def __init__(self, settings: Settings) -> None:
        from sb_pipelines.defs.time_series import daily, whole_range
        from sb_pipelines.resources import SkillsDb, Snapshots, Warehouse

        self.skills = SkillsDb(path=str(settings.skills_db))
        self.warehouse = Warehouse(database=str(settings.warehouse))
        self.snapshots = Snapshots(folder=str(settings.snapshots))
        self.start, self.end = whole_range(daily(settings))

    def run(self, name: str, found: dict[str, float]) -> None:
        from sb_pipelines.defs import checks, events, publish, time_series

        today = self.end - timedelta(days=1)
        with timed(f"{name} events", found), self.warehouse.writing(create=True) as connection:
            events.load(connection, self.skills)
        with timed(f"{name} series", found), self.warehouse.writing() as connection:
            time_series.rebuild_hours(connection, today, self.end)
        with timed(f"{name} totals", found), self.warehouse.writing() as connection:
            time_series.fold_totals(connection)
        with timed(f"{name} checks", found):
            assert checks.rows_are_possible(warehouse=self.warehouse).passed
            assert checks.series_sums_to_totals(warehouse=self.warehouse).passed
        with timed(f"{name} publish", found):
            publish.publish(self.warehouse, self.snapshots, self.start, self.end)


def add_news(settings: Settings) -> None:
    """Rows of the last hour, and some of weeks ago."""
    with Store.open(settings.skills_db) as store:
        store.connection.execute("pragma foreign_keys = off")  # the aggregates are not filled
        plan = demo.DemoPlan(n=NEWS + LATE, seed=int(time.time()), end=END, days=90)
        drawn = list(demo.invocations(plan))
        moment = times.to_utc_text(END)
        fresh = [replace(row, invoked_at=moment) for row in drawn[:NEWS]]
        store.import_batch([*fresh, *drawn[NEWS:]])


@contextmanager
def timed(name: str, found: dict[str, float]) -> Iterator[None]:
    started, cpu = time.perf_counter(), time.process_time()
    yield
    found[name] = time.perf_counter() - started
    found[f"{name}, CPU"] = time.process_time() - cpu


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(Path(sys.argv[2]))))
    else:
        scale = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
        print(markdown(run(scale, Path(sys.argv[2]) if len(sys.argv) > 2 else None)))
