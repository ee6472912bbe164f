"""Speed and memory of reading Claude Code transcripts, without and with a store.

The mix of records follows what was counted in real files: two text or thinking records and one
progress record per call, results of 100 bytes to 40 kB. The baseline is `json.loads` of each line.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from pathlib import Path

from sb_serving.ingest import ingest_claude_code, parse_tree
from sb_serving.store import Identity
from tests.bench.report import Row, peak_rss_mb
from tests.builders import new_store
from tests.claude_code_builder import LATER, Log

SIZES = (100, 400, 1_000, 2_000, 8_000, 40_000)
ROWS_PER_MEGABYTE = 10_000
"""Of the common scale, which counts invocations: a million stands for 100 MB of transcripts."""

IDENTITY = Identity(b"k" * 32)


def write(path: Path, megabytes: float) -> None:
    """Write a transcript of about this size."""
    draw = random.Random(1)
    filler = "".join(draw.choice('abcdefghij klmnop qrstuv\nwxyz"{}') for _ in range(50_000))
    number = 0
    with path.open("wb") as file:
        while file.tell() < megabytes * 1e6:
            log = Log("bench").say("Please.").load(f"skill-{number}", "plan")
            for call in range(50):
                event_id = f"call-{number}-{call}"
                log.answer({"type": "thinking", "thinking": filler[:300]}).text(filler[:200])
                log.call(event_id, "Bash", input={"command": f"pytest {filler[:100]}"})
                log.add("progress", data={"type": "hook_progress"}, parentToolUseID=event_id)
                output = filler[: draw.choice(SIZES)]
                log.result(event_id, output, detail={"stdout": output, "interrupted": False})
            file.write(log.text().bytes())
            number += 1


def run(scale: int = 1_000_000) -> list[Row]:
    """Measure on one synthetic file.

    Args:
        scale: Invocations that the other benchmarks work on.
    """
    with tempfile.TemporaryDirectory() as name:
        root = Path(name, "transcripts")
        root.mkdir()
        path = root / "bench.jsonl"
        write(path, scale / ROWS_PER_MEGABYTE)
        size = path.stat().st_size / 1e6
        start = time.perf_counter()
        with path.open("rb") as file:
            for line in file:
                json.loads(line)
        plain = size / (time.perf_counter() - start)
        start = time.perf_counter()
        for _ in parse_tree(root, IDENTITY, "bench", LATER):
            pass
        parsed = size / (time.perf_counter() - start)
        with new_store(Path(name, "db")) as store:
            start = time.perf_counter()
            summary = ingest_claude_code(store, root, IDENTITY, "bench", LATER)
            seconds = time.perf_counter() - start
    memory = peak_rss_mb()
    what = f"transcript of {size:,.0f} MB"
    return [
        Row(f"{what}, parsed", parsed, "MB/s", "json.loads", plain, ">= 30 MB/s", parsed >= 30),
        Row(f"{what}, into a new store", size / seconds, "MB/s"),
        Row(f"{what}, into a new store", summary.inserted / seconds, "rows/s"),
        Row(f"{what}, peak memory", memory, "MB", bar="<= 300 MB", met=memory <= 300),
    ]
