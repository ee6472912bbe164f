"""`make validate`: simulates what the statistics promise, prints tables, fails below a bar.

    python -m tests.validate                      every script, full size
    python -m tests.validate trends baselines     some of them
    python -m tests.validate predict --data DIR   options after the names go to each of them

Each script is `validate_<name>.py` and runs alone too, with `--data DIR` for those that also look
at public data sets. Sizes and seeds stand in the scripts.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent


def main(arguments: list[str]) -> int:
    """Run the named scripts, each in a process of its own; the status of the worst."""
    first = next((i for i, one in enumerate(arguments) if one.startswith("-")), len(arguments))
    names, options = arguments[:first], arguments[first:]
    known = sorted(path.stem.removeprefix("validate_") for path in FOLDER.glob("validate_*.py"))
    unknown = set(names) - set(known)
    if unknown:
        sys.stderr.write(f"no such script: {', '.join(unknown)}; known: {', '.join(known)}\n")
        return 2
    worst = 0
    for name in names or known:
        sys.stdout.write(f"\n# {name}\n\n")
        sys.stdout.flush()
        module = f"tests.validate.validate_{name}"
        command = [sys.executable, "-m", module, *options]
        worst = max(worst, subprocess.run(command, check=False).returncode)
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
