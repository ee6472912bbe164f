"""Speed of the batch side: rows of skills.db to a published snapshot, first and with a little news.

`python -m tests.bench.bench_pipeline [ROWS] [FOLDER]` prints the table; a FOLDER is kept, and a
store that is in it already is used again. The steps are those of the job `refresh`, run as `sb
refresh` runs it; Dagster's own time (its start, its events) is in the CPU and in the last row only.
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
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg

from sb_pipelines.definitions import build
from sb_pipelines.defs.time_series import daily
from sb_pipelines.refresh import JOB, refresh
from sb_pipelines.resources import Warehouse
from sb_serving import demo, times
from sb_serving.settings import Settings
from sb_serving.store import Store
from tests.bench.report import Row, markdown, peak_rss_mb

END = datetime(2026, 11, 22, tzinfo=UTC)
NEWS, LATE = 5_000, 200
TO_SERIES = {
    *("events", "events_events_complete", "skill_time_series", "skill_totals"),
    *("skill_time_series_rows_are_possible", "skill_totals_series_sums_to_totals"),
}
"""Steps of the job up to the checked series."""
BARS: dict[int, dict[str, float | None]] = {
    1_000_000: {"first series": None, "first": 15, "news series": None, "news": None, "MB": 3_000},
    10_000_000: {"first series": None, "first": 90, "news series": 2, "news": 4, "MB": 3_000},
}
"""Rows of the store -> seconds and MB that may be spent."""

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


def rows(scale: int, found: dict[str, Any]) -> list[Row]:
    """The measurements as rows; the floor is one scan of the same events."""
    size = f"{scale:,} rows"
    bars = BARS.get(scale)
    floor = {"baseline": "one scan of the events", "baseline_value": found["floor"]}
    listed = []
    for name, what in (
        ("first", f"first refresh of {size}"),
        ("news", f"{NEWS:,} new and {LATE} late rows on {size}"),
    ):
        steps: dict[str, float] = found[name]
        series = sum(seconds for step, seconds in steps.items() if step in TO_SERIES)
        total = sum(steps.values())
        published = series + sum(steps[step] for step in ("published_snapshot", "write_back"))
        for part, seconds, bar in (
            ("to the checked series", series, bars and bars[f"{name} series"]),
            ("with publish and write-back", published, bars and bars[name]),
            ("with the other tables and anomalies too", total, None),
        ):
            listed.append(
                Row(
                    f"{what}, {part}",
                    seconds,
                    "s",
                    **floor,
                    bar=f"<= {bar:g} s" if bar else "",
                    met=seconds <= bar if bar else None,
                )
            )
        listed += [Row(f"  {step}", seconds, "s", **floor) for step, seconds in steps.items()]
        cpu = found[f"{name}, CPU"]
        listed.append(Row("  CPU of the run", cpu, "s", "the scan's CPU", found["floor, CPU"]))
        if name == "first":
            memory = bars and bars["MB"]
            listed.append(
                Row(
                    "  peak memory",
                    found["rss"],
                    "MB",
                    bar=f"<= {memory:g} MB" if memory else "",
                    met=found["rss"] <= memory if memory else None,
                )
            )
    return [*listed, Row("`sb refresh` with nothing new, in this process", found["nothing"], "s")]


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
        # What refers to a skill finds it, so that write-back has rows to write.
        connection.execute(
            "insert into skill_metrics (skill_name)"
            " select distinct skill_name from skill_invocation"
        )
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


def measure(home: Path) -> dict[str, Any]:
    """Time each step on an empty warehouse, then with news; seconds of wall time and of CPU."""
    settings = Settings.load(home=home)
    settings.warehouse.unlink(missing_ok=True)
    found: dict[str, Any] = {}
    run_job(settings, "first", found)
    found["rss"] = peak_rss_mb()
    with (
        Warehouse(database=str(settings.warehouse)).reading() as connection,
        timed("floor", found),
    ):
        connection.execute(FLOOR).fetchall()
    add_news(settings)
    run_job(settings, "news", found)
    with timed("nothing", found):
        refresh(settings)
    return found


def run_job(settings: Settings, name: str, found: dict[str, Any]) -> None:
    """Run the job `refresh` in this process and keep the seconds of each step."""
    job = build(settings).resolve_job_def(JOB)
    started = time.process_time()
    done = job.execute_in_process(
        instance=dg.DagsterInstance.ephemeral(),
        partition_key=daily(settings).get_last_partition_key(),
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )
    found[f"{name}, CPU"] = time.process_time() - started
    found[name] = {
        str(event.step_key): event.step_success_data.duration_ms / 1000
        for event in done.all_events
        if event.is_step_success
    }


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
def timed(name: str, found: dict[str, Any]) -> Iterator[None]:
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
