"""A thousand random batches, folded into the set tables: what is there equals a count anew.

Run: `python -m tests.validate.validate_sets [--rounds N]`, of fifty batches each. The suite makes
fewer of the same. Prints one line; a difference ends it with a traceback and the seed.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from hypothesis import given, settings

from tests.test_sets import BATCHES, DRAWN, fold_batches


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()

    @settings(max_examples=options.rounds, deadline=None, database=None)
    @given(**DRAWN)
    def many(**drawn: Any) -> None:
        fold_batches(**drawn)

    many()
    print(f"{options.rounds * BATCHES:,} batches in {options.rounds} histories: 0 rows differ")
    return 0


if __name__ == "__main__":
    sys.exit(main())
