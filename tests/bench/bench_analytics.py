"""Speed of the result tables of the skills: all of them from scratch, and after one more hour.

`python -m tests.bench.bench_analytics [ROWS] [FOLDER]` prints the table, ten million rows by
default; a FOLDER is kept, and a warehouse that is in it already is used again. Rows are the demo's,
200 skills and 50,000 users, put into the warehouse's `events` directly: reading `skills.db` is
`pipeline`'s part, as are series and totals.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np

from sb_pipelines import anomalies
from sb_pipelines.defs import baselines, clusters, dependencies, sets, time_series, trends
from sb_pipelines.resources import Warehouse, set_watermark
from sb_serving import demo
from tests.bench.report import Row, markdown, peak_rss_mb

END = datetime(2026, 11, 22, tzinfo=UTC)
NOW = END.replace(tzinfo=None)
NEWS = 5_000
DRAWN = 1_000_000
"""Rows that are drawn one by one; beyond, they are repeated with sessions of their own."""

NOWHERE = datetime(1990, 1, 1)
CPU = ", CPU"
BARS = {1_000_000: (15.0, 3.0, 5_000.0), 10_000_000: (60.0, 3.0, 5_000.0)}
"""Rows -> seconds from scratch, seconds for one hour, MB."""

FLOOR = """
select count(*), count(distinct skill_name), count(distinct kind), count(distinct outcome),
       max(invoked_at), sum(duration_seconds), max(session_id), max(user_id)
from events
"""
COLUMNS = (
    *("skill_name", "invoked_at", "session_id", "user_id", "workflow_phase", "kind", "outcome"),
    "duration_seconds",
)


def run(scale: int = 10_000_000, folder: Path | None = None) -> list[Row]:
    """Measure in a process of its own, whose memory is the analytics' alone.

    Args:
        scale: Rows.
        folder: Where the warehouse is, or is to be; a temporary one if None.
    """
    with tempfile.TemporaryDirectory() as temporary:
        home = folder or Path(temporary)
        fill(home, scale)
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench.bench_analytics", "--measure", str(home)],
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
    return rows(scale, json.loads(done.stdout.splitlines()[-1]))


def rows(scale: int, found: dict[str, float]) -> list[Row]:
    """The measurements as rows; the floor is one scan of the same events."""
    first, hour, megabytes = BARS.get(scale, (0.0, 0.0, 0.0))
    out = []
    for name, what, bar in (
        ("first", f"all result tables of {scale:,} rows from scratch", first),
        ("news", f"the same after {NEWS:,} more rows", hour),
    ):
        steps = [key for key in found if key.startswith(f"{name} ") and not key.endswith(CPU)]
        total = sum(found[step] for step in steps)
        floor = {"baseline": "one scan of the events", "baseline_value": found["floor"]}
        met = total <= bar if bar else None
        out.append(Row(what, total, "s", **floor, bar=f"<= {bar:g} s" if bar else "", met=met))
        for step in steps:
            out.append(Row(f"  {step.removeprefix(f'{name} ')}", found[step], "s", **floor))
        cpu = sum(found[step + CPU] for step in steps)
        out.append(Row("  CPU of all steps", cpu, "s", "the scan's CPU", found["floor" + CPU]))
    out.append(
        Row(
            "peak memory",
            found["rss"],
            "MB",
            bar=f"<= {megabytes:g} MB" if megabytes else "",
            met=found["rss"] <= megabytes if megabytes else None,
        )
    )
    return out


def warehouse(home: Path) -> Warehouse:
    return Warehouse(database=str(home / "warehouse.duckdb"))


def fill(home: Path, scale: int) -> None:
    """A warehouse with events, series and totals, and nothing of the analytics."""
    home.mkdir(parents=True, exist_ok=True)
    if (home / "warehouse.duckdb").exists():
        return
    base = min(scale, DRAWN)
    plan = demo.DemoPlan(n=base, seed=1, end=END, skills=200, users=50_000)
    with warehouse(home).writing(create=True) as connection:
        for chunk in demo.chunks(plan):
            append(connection, {name: chunk[name] for name in COLUMNS})
        for copy in range(1, scale // base):
            connection.execute(
                "insert into events select * replace (id + $shift as id,"
                " session_id || '-' || $copy as session_id) from events where id <= $base",
                {"shift": copy * base, "copy": copy, "base": base},
            )
        set_watermark(connection, "events", scale, NOW)
        time_series.rebuild_hours(connection, NOWHERE, NOWHERE)
        time_series.fold_totals(connection)


def append(connection: duckdb.DuckDBPyConnection, columns: dict[str, np.ndarray]) -> None:
    """Add rows with the next ids."""
    ((first,),) = connection.execute("select coalesce(max(id), 0) + 1 from events").fetchall()
    n = len(columns["skill_name"])
    new_rows = {"id": np.arange(first, first + n), **columns}  # noqa: F841 (found by its name)
    connection.execute("insert into events by name select * from new_rows")


def measure(home: Path) -> dict[str, float]:
    """CPU seconds of each step on a warehouse without results, then with an hour of news."""
    found: dict[str, float] = {}
    place = warehouse(home)
    with place.writing() as connection:
        for table in (
            *(*sets.KEYS, *sets.SETS, "session_first_use", "pair_order", "skill_trends"),
            *("skill_community_baselines", "skill_dependencies", *clusters.TABLES),
            "skill_anomalies",
        ):
            connection.execute(f"delete from {table}")
        connection.execute(
            "delete from watermarks where name not in ('events', 'series', 'totals')"
        )
    import sklearn.cluster  # noqa: F401 (its import is not the analytics')

    steps(place, "first", found)
    found["rss"] = peak_rss_mb()
    with place.reading() as connection, timed("floor", found):
        connection.execute(FLOOR).fetchall()
    add_news(place)
    steps(place, "news", found)
    return found


def steps(place: Warehouse, name: str, found: dict[str, float]) -> None:
    """The functions of the assets, in the order of a run."""
    with timed(f"{name} sets", found), place.writing() as connection:
        sets.fold_sets(connection)
    with timed(f"{name} skill_community_baselines", found), place.writing() as connection:
        baselines.update(connection, NOW)
    with timed(f"{name} skill_anomalies", found), place.writing() as connection:
        anomalies.search(connection, NOW)
    with timed(f"{name} skill_trends", found):
        trends.update(place, NOW)
    with timed(f"{name} skill_dependencies", found):
        dependencies.update(place, NOW)
    with timed(f"{name} skill_clusters", found):
        clusters.update(place, NOW)


def add_news(place: Warehouse) -> None:
    """Rows of the last hour, some of them in sessions that began before; series and totals too."""
    plan = demo.DemoPlan(n=NEWS, seed=int(time.time()), end=END, days=2, skills=200, users=50_000)
    with place.writing() as connection:
        for chunk in demo.chunks(plan):
            columns = {name: chunk[name] for name in COLUMNS}
            columns["invoked_at"] = np.full(
                len(columns["invoked_at"]), np.datetime64(NOW - timedelta(minutes=5), "us")
            )
            append(connection, columns)
        ((top,),) = connection.execute("select max(id) from events").fetchall()
        set_watermark(connection, "events", top, NOW)
        time_series.rebuild_hours(connection, NOWHERE, NOWHERE)
        time_series.fold_totals(connection)


@contextmanager
def timed(name: str, found: dict[str, float]) -> Iterator[None]:
    started, cpu = time.perf_counter(), time.process_time()
    yield
    found[name] = time.perf_counter() - started
    found[name + CPU] = time.process_time() - cpu


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(Path(sys.argv[2]))))
    else:
        scale = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000
        print(markdown(run(scale, Path(sys.argv[2]) if len(sys.argv) > 2 else None)))
