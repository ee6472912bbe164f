"""Kills migrations at random moments: the file is at a version before or after, never between.

`python -m tests.chaos.chaos_migrate 50` runs fifty rounds and prints where each was stopped.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from sb_serving.store import backups, migrate, restore
from sb_serving.store.connection import connect
from tests import session_buddy_builder as builder
from tests.chaos.killing import Victim, pause, wait_for_begin

ROWS = 1_500


def run(rounds: int, seed: int = 1) -> list[str]:
    """Kill a migration up or down in each round and look at what it left.

    Args:
        rounds: How many.
        seed: Of the moments.

    Returns:
        Per round: the way, where it started and the version that was found.

    Raises:
        AssertionError: A file was left half way, or could not be brought on and back.
    """
    draw = random.Random(seed)
    found = []
    with tempfile.TemporaryDirectory() as name:
        for number in range(rounds):
            folder = Path(name, str(number))
            folder.mkdir()
            found.append(_round(folder, draw, start=number % 3 + 1, way=("up", "down")[number % 2]))
    return found


def _round(folder: Path, draw: random.Random, start: int, way: str) -> str:
    path = builder.make(folder / "skills.db", start, ordinary=_rows())
    with closing(connect(path)) as connection:
        original = builder.picture(connection)
    seconds, shapes = _undisturbed(folder, path, start, way)
    if way == "down":
        _migrate(path, "up", start)
    victim = Victim("tests.chaos.chaos_migrate", ["--victim", str(path), way, str(start)])
    victim.ready()
    victim.begin()
    pause(draw.uniform(0, 1.1 * seconds))
    victim.kill()
    with closing(connect(path)) as connection:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
        version = migrate.status(connection, path).version
        assert start <= version <= migrate.LATEST
        assert _shape(connection) == shapes[version], f"{way} from {start} left a half V{version}"
        migrate.up(connection, path)
        assert _shape(connection) == shapes[migrate.LATEST]
        migrate.down(connection, path, steps=migrate.LATEST - start)
        assert builder.picture(connection) == original
    assert list(folder.glob("*" + backups.HALF)) == []
    for backup in backups.found(path):
        assert restore.verify(backup).version in shapes
    return f"{way:4} from V{start}: killed at V{version}"


def _undisturbed(
    folder: Path, path: Path, start: int, way: str
) -> tuple[float, dict[int, dict[str, Any]]]:
    """How long a way takes, and what the file looks like at each version of it."""
    copy = folder / "undisturbed.db"
    copy.write_bytes(path.read_bytes())
    shapes = {}
    with closing(connect(copy)) as connection:
        for version in range(start, migrate.LATEST + 1):
            migrate.up(connection, copy, target=version)
            shapes[version] = _shape(connection)
    if way == "up":
        copy.write_bytes(path.read_bytes())
    begun = time.perf_counter()
    _migrate(copy, way, start)
    return time.perf_counter() - begun, shapes


def _migrate(path: Path, way: str, start: int) -> None:
    with closing(connect(path)) as connection:
        if way == "up":
            migrate.up(connection, path)
        else:
            migrate.down(connection, path, steps=migrate.LATEST - start)


def _shape(connection: Any) -> dict[str, Any]:
    """What does not depend on when a version was applied: the DDL, and the rows of each table."""
    picture = builder.picture(connection)
    for table in ("skill_migrations", "skill_metrics_cache"):
        picture[table] = [row[:1] for row in picture.get(table, [])]
    return {name: rows for name, rows in picture.items() if not name.startswith("v_")}


def _rows() -> list[tuple[Any, ...]]:
    def rows() -> Iterator[tuple[Any, ...]]:
        for number in range(ROWS):
            time_text = f"2026-11-20T{number // 3600:02d}:{number // 60 % 60:02d}:{number % 60:02d}"
            yield (
                *(f"skill-{number % 7}", f"{time_text}.000001+00:00", f"s{number // 20}"),
                *(number % 3 > 0, "boom" if number % 6 == 0 else None, 1.5, "quick", None),
            )

    return list(rows())


def _victim(path: Path, way: str, start: int) -> None:
    wait_for_begin()
    _migrate(path, way, start)


if __name__ == "__main__":
    if sys.argv[1] == "--victim":
        _victim(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
    else:
        print("\n".join(run(int(sys.argv[1]))))
