"""A hundred changes of the snapshot under constant reading: 0 dropped, 0 torn, nothing left open.

Run: `python -m tests.validate.validate_snapshot_swaps [--swaps N]`. The suite makes fewer of the
same. Prints one line; a torn or dropped reading ends it with a traceback.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.test_snapshot import swap_under_readers


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--swaps", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        readings = swap_under_readers(Path(folder), options.swaps)
    print(f"{options.swaps} swaps, {readings:,} readings of three queries: 0 dropped, 0 torn")
    return 0


if __name__ == "__main__":
    sys.exit(main())
