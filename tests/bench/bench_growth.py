"""How the cost of a refresh grows with the log: 1, 10 and 30 million rows.

`python -m tests.bench growth` takes half an hour and 45 GB, so `make bench` leaves it out.
`python -m tests.bench.bench_growth FOLDER` keeps the stores in FOLDER and finds them there again.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.bench import bench_pipeline
from tests.bench.report import Row, markdown

SCALES = (1_000_000, 10_000_000, 30_000_000)
DETAILS = ("  CPU of the run", "  peak memory")


def run(folder: Path | None = None) -> list[Row]:
    """Measure each size; of the single steps only the totals are kept.

    Args:
        folder: Where the stores are, or are to be; temporary ones if None.
    """
    rows = []
    for scale in SCALES:
        home = None if folder is None else folder / str(scale)
        kept = [
            row
            for row in bench_pipeline.run(scale, home)
            if not row.what.startswith("  ") or row.what in DETAILS
        ]
        rows += kept[:-1]  # the last one is Dagster's, and the same at every size
    return rows


if __name__ == "__main__":
    print(markdown(run(Path(sys.argv[1]) if len(sys.argv) > 1 else None)))
