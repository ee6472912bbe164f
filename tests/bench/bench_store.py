"""Speed of the event store: single commits, bulk import, `sb record`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from sb_serving import demo, sql
from sb_serving.events import Invocation
from sb_serving.store import Store
from sb_serving.store.recorder import _COLUMNS, _values
from tests.bench.report import Row

COMMITS = 5_000
END = datetime(2026, 11, 20, tzinfo=UTC)


def run(scale: int = 1_000_000) -> list[Row]:
    """Measure the store.

    Args:
        scale: Invocations of the bulk import.
    """
    with tempfile.TemporaryDirectory() as folder:
        return [
            *_single_commits(Path(folder)),
            *_bulk(Path(folder), scale),
            _command(Path(folder)),
        ]


def _single_commits(folder: Path) -> list[Row]:
    """The recorder against the same statements in a bare loop, alternating, best of three each."""
    invocations = list(demo.invocations(demo.DemoPlan(n=COMMITS, seed=3, end=END)))
    ours: list[float] = []
    bare: list[float] = []
    for turn in range(3):
        with Store.open(folder / f"bare{turn}.db", create=True) as store:
            bare.append(_bare_loop(store, invocations))
        with Store.open(folder / f"ours{turn}.db", create=True) as store:
            begun = time.perf_counter()
            for invocation in invocations:
                store.record(invocation)
            ours.append(COMMITS / (time.perf_counter() - begun))
    value, floor = max(ours), max(bare)
    return [
        Row(
            "recorder, single commits",
            value,
            "commits/s",
            "the same SQL in a bare loop",
            floor,
            ">= 2,000/s and >= .7 of the bare loop",
            value >= 2000 and value >= 0.7 * floor,
        )
    ]


def _bare_loop(store: Store, invocations: list[Invocation]) -> float:
    rows = [dict(zip(_COLUMNS, _values(one), strict=True)) for one in invocations]
    next_id = sql.load("store/next_id.sql")
    companion = sql.load("store/insert_companion.sql")
    log = sql.load("store/insert_invocation.sql")
    execute = store.connection.execute
    begun = time.perf_counter()
    for row in rows:
        execute("begin immediate")
        row["id"] = execute(next_id).fetchone()[0]
        execute(companion, row)
        execute(log, row)
        execute("commit")
    return COMMITS / (time.perf_counter() - begun)


def _bulk(folder: Path, scale: int) -> list[Row]:
    plan = demo.DemoPlan(n=scale, seed=4, end=END)
    begun = time.perf_counter()
    for _ in demo.invocations(plan):
        pass
    drawing = time.perf_counter() - begun
    with Store.open(folder / "bulk.db", create=True) as store:
        begun = time.perf_counter()
        store.bulk_import(demo.invocations(plan))
        importing = time.perf_counter() - begun - drawing
    limit = 40 * scale / 1e6
    return [
        Row(
            f"bulk import of {scale:,} (drawing them, {drawing:.1f} s, taken off)",
            importing,
            "s",
            bar=f"<= {limit:.0f} s",
            met=importing <= limit,
        )
    ]


def _command(folder: Path) -> Row:
    """`sb record` as a hook calls it, against a Python that starts and ends."""
    script = Path(sys.executable).with_name("sb")
    argv = [str(script), "record", "commit", "--session", "s", "--home", str(folder / "home")]
    times = [_wall(argv) for _ in range(15)]
    floor = [_wall([sys.executable, "-c", "pass"]) for _ in range(15)]
    value = median(times[1:]) * 1000
    return Row(
        "`sb record`, whole command",
        value,
        "ms",
        "`python -c pass`",
        median(floor[1:]) * 1000,
        "<= 150 ms",
        value <= 150,
    )


def _wall(argv: list[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(argv, check=True, capture_output=True)
    return time.perf_counter() - begun
