"""How the cost of a refresh grows with the log: 1, 10 and 30 million rows.

`python -m tests.bench growth` takes half an hour and 45 GB, so `make bench` leaves it out.
`python -m tests.bench.bench_growth FOLDER` keeps the stores in FOLDER and finds them there again.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from tests.bench import bench_pipeline
from tests.bench.report import Row, markdown

SCALES = (1_000_000, 10_000_000, 30_000_000)
DETAILS = ("  CPU of the run", "  peak memory")

PREDECESSOR = """
select skill_name, strftime('%Y-%m-%dT%H', invoked_at) as hour, count(*), avg(completed),
       avg(duration_seconds)
from skill_invocation
where datetime(invoked_at) >= datetime(?, '-24 hours')
group by skill_name, hour
"""
"""How the predecessor aggregates its hours: the function around the column hides it from the index,
so that a day of news costs a scan of the log."""


def run(folder: Path | None = None) -> list[Row]:
    """Measure each size; of the single steps only the totals are kept.

    Args:
        folder: Where the stores are, or are to be; temporary ones if None.
    """
    rows = []
    for scale in SCALES:
        with tempfile.TemporaryDirectory() as temporary:
            home = Path(temporary) if folder is None else folder / str(scale)
            kept = [
                row
                for row in bench_pipeline.run(scale, home)
                if not row.what.startswith("  ") or row.what in DETAILS
            ]
            rows += kept[:-1]  # the last one is Dagster's, and the same at every size
            rows.append(predecessor(home / "skills.db", scale))
    return rows


def predecessor(path: Path, scale: int) -> Row:
    """Seconds of the predecessor's aggregation of the last day, which it repeats each hour."""
    with closing(sqlite3.connect(path)) as connection:
        started = time.perf_counter()
        connection.execute(PREDECESSOR, [bench_pipeline.END.isoformat()]).fetchall()
        took = time.perf_counter() - started
    return Row(f"the predecessor's hours of the last day of {scale:,} rows, series only", took, "s")


if __name__ == "__main__":
    print(markdown(run(Path(sys.argv[1]) if len(sys.argv) > 1 else None)))
