"""`make bench`: runs the measurements one after another and writes `docs/performance.md`.

python -m tests.bench                     everything but growth: analytics at ten million
                                          invocations, the rest at one
python -m tests.bench store pipeline      some of it; the page keeps the other sections
python -m tests.bench growth              1, 10 and 30 million invocations; half an hour
"""

from __future__ import annotations

import importlib
import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from tests.bench.report import Row, markdown

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
PARTS = {
    "store": "Event store",
    "claude_code": "Claude Code transcripts",
    "pipeline": "Pipeline",
    "analytics": "Analytics",
    "predict": "Predictions and recommendations",
    "live": "Live side",
    "feed": "Feed",
    "mcp": "MCP",
    "growth": "Growth of a refresh",
}
ON_REQUEST = {"growth"}
HEAD = """\
# Performance

Written by `make bench`; do not edit by hand. Each line is one measurement beside its baseline, both
taken in one run on one machine. Trust ratios more than seconds. "missed" says that the figure did
not reach what the project asks for on that machine and day.
"""


def main(names: list[str]) -> int:
    """Run the named parts, each in a process of its own, and write the page."""
    unknown = set(names) - PARTS.keys()
    if unknown:
        sys.stderr.write(f"no such part: {', '.join(unknown)}; known: {', '.join(PARTS)}\n")
        return 2
    sections = _sections()
    for name in names or [part for part in PARTS if part not in ON_REQUEST]:
        # Memory peaks belong to one part only in a process of its own.
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench", "--part", name],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        stamp = datetime.now(UTC).strftime("%Y-%m-%d")
        load = os.getloadavg()[0]
        sections[name] = (
            f"## {PARTS[name]}\n\n{stamp}, {os.cpu_count()} cores, load {load:.1f},"
            f" Python {platform.python_version()}.\n\n{done.stdout}"
        )
        sys.stdout.write(sections[name] + "\n")
        PAGE.write_text("\n".join([HEAD, *(sections[part] for part in PARTS if part in sections)]))
    return 0


def _sections() -> dict[str, str]:
    """The page's sections as they stand, by part."""
    if not PAGE.exists():
        return {}
    titles = {title: part for part, title in PARTS.items()}
    found = re.findall(r"^(## (.*?)\n.*?)(?=^## |\Z)", PAGE.read_text(), flags=re.M | re.S)
    return {titles[title]: text.rstrip() + "\n" for text, title in found if title in titles}


def _part(name: str) -> None:
    """Run one part in this process and print its table."""
    rows: list[Row] = importlib.import_module(f"tests.bench.bench_{name}").run()
    sys.stdout.write(markdown(rows) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--part"]:
        _part(sys.argv[2])
    else:
        sys.exit(main(sys.argv[1:]))
